import pg from 'pg';
import { ordersOnPaper } from './cases.ts';
import { Interleaver } from './interleave.ts';
import { type Case, Judge, nameOf, type Tally } from './judge.ts';
import { createWorld } from './world.ts';

/** Runs cases on one database. */
export interface Worker {
  /** Whether a mount moves in its catalogue. */
  readonly isMoving: boolean;
  work(cases: Case[], tally: Tally): Promise<void>;
  close(): Promise<void>;
}

/** Fills a migrated database, as a superuser. The roles must exist. */
export async function startWorker(
  url: string,
  roles: Readonly<Record<string, string>>,
  isMoving = false,
): Promise<Worker> {
  const watcher = new pg.Client(url);
  watcher.on('error', () => undefined);
  await watcher.connect();
  const world = await createWorld(watcher, url, roles, isMoving);
  const interleaver = new Interleaver(world);
  const judge = new Judge(world, interleaver);
  return {
    isMoving,
    async work(cases, tally) {
      for (let one = cases.pop(); one !== undefined; one = cases.pop()) {
        try {
          await judge.judge(one, tally);
        } catch (error) {
          throw new Error(`The orders of ${nameOf(one)} cannot be run`, { cause: error });
        }
        // The rows of earlier runs are dead, and the next ones would read them.
        if (cases.length % 20 === 0) await watcher.query('vacuum');
      }
    },
    async close() {
      await interleaver.close();
      await watcher.end();
    },
  };
}

/** Runs each case on one of the workers that have its catalogue. */
export async function runCases(crew: readonly Worker[], cases: readonly Case[], tally: Tally): Promise<void> {
  const [still, moving] = [false, true].map((isMoving) =>
    cases.filter((one) => one.isMoving === isMoving).reverse(),
  );
  await Promise.all(crew.map((worker) => worker.work((worker.isMoving ? moving : still) ?? [], tally)));
}

/** The numbers in one line, and each difference with its steps. */
export function renderTally(cases: readonly Case[], tally: Tally): string {
  const list = (times: ReadonlyMap<string, number>) =>
    [...times]
      .sort()
      .map(([reason, number]) => `${reason} ${number}`)
      .join(', ') || 'none';
  const onPaper = cases.reduce((sum, one) => sum + ordersOnPaper(one), 0);
  return [
    `${cases.length} cases, ${tally.runs} orders of ${onPaper} on paper, ${tally.waits} waits, ${tally.differences.length} differences`,
    `  refusals: ${list(tally.refusals)}`,
    `  of these in no serial order: ${list(tally.onlyBetween)}`,
    `  right, although no serial order has it: ${list(tally.expected)}`,
    ...tally.differences
      .filter(({ of }, at) => tally.differences.findIndex((other) => other.of === of) === at)
      .map(({ of, what, steps }) => [of, what, ...steps].join('\n    ')),
  ].join('\n');
}
