import { setTimeout as delay } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import { startOf } from '../harness/compiled.ts';
import { copyPackage } from '../harness/package-copy.ts';
import { withClient } from '../src/testing/with-client.ts';
import { type BenchServer, withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { atMost, compare, figuresInTurns } from './measure.ts';
import { processTime } from './processes.ts';

/** Transactions follow each other on the table, and use it for 80 % of the time. */
const HOLD_MS = 4_000;
const FREE_MS = 1_000;
const WRITE_EVERY_MS = 5;
/** Migrations of one measurement; they begin at different times between two transactions. */
const MIGRATIONS = 5;
const ALTER = 'alter table public.busy add column more text';

/** Of several migrations, in milliseconds. */
interface Figures {
  /** The longest insert of a writer. */
  readonly stall: number;
  /** From the start of a migration to its end, on average. */
  readonly migrated: number;
}

/** How long migrations of a busy table hold up a writer: the runner against a constant lock timeout of five seconds. */
export const lockWaits: Comparison = async ({ server, rounds, report }) => {
  const copy = copyPackage();
  try {
    copy.modelIsOf(copy.addMigration('busy', `${ALTER};`));
    const args = [...startOf(copy.folder, 'dev', 'cli'), 'migrate'];
    const runner = { command: process.execPath, args, says: 'Done: ' };
    const figures = await figuresInTurns(rounds, {
      here: () => migrateBusyTables(server, (url) => processTime(runner, copy.folder, url)),
      constant: () => migrateBusyTables(server, waitFiveSeconds),
    });
    const column = (name: keyof Figures) =>
      [figures.here.map((each) => each[name]), figures.constant.map((each) => each[name])] as const;
    report(
      compare(
        'longest wait of a writer while a busy table is altered, twin: always 5 s',
        'ms',
        ...column('stall'),
        atMost(0.3),
      ),
      compare('until the busy table is altered, twin: always 5 s', 'ms', ...column('migrated')),
    );
  } finally {
    copy.remove();
  }
};

async function migrateBusyTables(
  server: BenchServer,
  migrate: (url: string) => Promise<number>,
): Promise<Figures> {
  const all: Figures[] = [];
  for (let number = 0; number < MIGRATIONS; number += 1) {
    const beginAfterMs = ((number + 0.5) / MIGRATIONS) * (HOLD_MS + FREE_MS);
    all.push(await migrateBusyTable(server, beginAfterMs, migrate));
  }
  return {
    stall: Math.max(...all.map(({ stall }) => stall)),
    migrated: all.reduce((sum, { migrated }) => sum + migrated, 0) / MIGRATIONS,
  };
}

async function migrateBusyTable(
  server: BenchServer,
  beginAfterMs: number,
  migrate: (url: string) => Promise<number>,
): Promise<Figures> {
  return withDatabase(server, async ({ url, client }) => {
    await client.query('create table public.busy (id bigint generated always as identity)');
    const stop = new AbortController();
    const holding = withClient(url, (holder) => holdAgainAndAgain(holder, stop.signal));
    const writing = withClient(url, (writer) => writeAgainAndAgain(writer, stop.signal));
    let migrated: number;
    try {
      await delay(beginAfterMs);
      migrated = await migrate(url);
    } finally {
      stop.abort();
      await holding;
    }
    return { stall: await writing, migrated };
  });
}

async function holdAgainAndAgain(holder: Client, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await holder.query('begin; lock table public.busy in row exclusive mode');
    await delay(HOLD_MS, undefined, { signal }).catch(() => undefined);
    await holder.query('commit');
    await delay(FREE_MS, undefined, { signal }).catch(() => undefined);
  }
}

/** @returns the milliseconds of the longest insert. */
async function writeAgainAndAgain(writer: Client, signal: AbortSignal): Promise<number> {
  let longest = 0;
  while (!signal.aborted) {
    const startedAt = performance.now();
    await writer.query('insert into public.busy default values');
    longest = Math.max(longest, performance.now() - startedAt);
    await delay(WRITE_EVERY_MS);
  }
  return longest;
}

/** The same statement with a constant lock timeout, and the runner's pauses after it. */
async function waitFiveSeconds(url: string): Promise<number> {
  const startedAt = performance.now();
  await withClient(url, async (client) => {
    await client.query("set lock_timeout = '5s'");
    for (let failures = 0; ; failures += 1) {
      try {
        return await client.query(ALTER);
      } catch (error) {
        if (!(error instanceof pg.DatabaseError) || error.code !== '55P03') throw error;
        await delay(Math.min(200 * 2 ** failures, 10_000));
      }
    }
  });
  return performance.now() - startedAt;
}
