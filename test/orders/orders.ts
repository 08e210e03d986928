import pg from 'pg';
import { mulberry32 } from '../support/mulberry32.ts';
import { Interleaver } from './interleave.ts';
import { type Case, Judge, nameOf, type Tally } from './judge.ts';
import { createWorld } from './world.ts';

/** Runs cases on one database. */
export interface Worker {
  work(todo: Case[], tally: Tally): Promise<void>;
  close(): Promise<void>;
}

/** Fills a migrated database, as a superuser. The roles must exist. */
export async function startWorker(url: string, roles: Readonly<Record<string, string>>): Promise<Worker> {
  const watcher = new pg.Client(url);
  watcher.on('error', () => undefined);
  await watcher.connect();
  const world = await createWorld(watcher, url, roles);
  const interleaver = new Interleaver(world);
  const judge = new Judge(world, interleaver);
  return {
    async work(todo, tally) {
      for (let one = todo.pop(); one !== undefined; one = todo.pop()) {
        try {
          await judge.judge(one, tally);
        } catch (error) {
          throw new Error(`The orders of ${nameOf(one)} cannot be run`, { cause: error });
        }
        // The rows of earlier runs are dead, and the next ones would read them.
        if (todo.length % 20 === 0) await watcher.query('vacuum');
      }
    },
    async close() {
      await interleaver.close();
      await watcher.end();
    },
  };
}

/** A part of what is given, the same for each seed. */
export function sampleOf<T>(all: readonly T[], share: number, seed: number): readonly T[] {
  const random = mulberry32(seed);
  return all.filter(() => random() < share);
}

/** The numbers in one line, and each difference with its steps. */
export function renderTally(cases: number, tally: Tally): string {
  const list = (times: ReadonlyMap<string, number>) =>
    [...times]
      .sort()
      .map(([reason, number]) => `${reason} ${number}`)
      .join(', ') || 'none';
  return [
    `${cases} cases, ${tally.runs} orders, ${tally.waits} waits, ${tally.differences.length} differences`,
    `  refusals: ${list(tally.refusals)}`,
    `  of these in no serial order: ${list(tally.onlyBetween)}`,
    `  right, although no serial order has it: ${list(tally.expected)}`,
    ...tally.differences
      .filter(({ of }, at) => tally.differences.findIndex((other) => other.of === of) === at)
      .map(({ of, what, steps }) => [of, what, ...steps].join('\n    ')),
  ].join('\n');
}
