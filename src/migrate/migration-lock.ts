import { setTimeout as delay } from 'node:timers/promises';
import { type LockHolder, LockNotAcquiredError } from '../errors.ts';
import {
  describeHolderAndSince,
  holderKey,
  MIGRATION_LOCK_KEY,
  UNKNOWN_HOLDER,
} from '../session/lock-holder.ts';
import type { Queryable, Session } from '../session/session.ts';
import { RUN_SETTINGS } from '../settings/server-settings.ts';
import { sendUntilLifted, settingStatement } from '../settings/setting-statement.mjs';
import { paragraph, seconds } from '../text.ts';
import { pendingIn } from './plan.ts';
import type { Run } from './run-state.ts';
import { type Survey, survey } from './survey.ts';

/** Mean interval of polling: low load, and no noticeable delay. */
const POLL_MS = 200;

/**
 * Waits until this session holds the lock of migrations. It polls instead of calling pg_advisory_lock: a
 * waiting statement holds a snapshot, and "create index concurrently" in the holder's session would wait for
 * that snapshot, so both would hang. The lock ends with the session.
 * @returns the database as it is under the lock, or without it when another migrator has applied everything.
 * @throws {LockNotAcquiredError} another migrator held the lock for too long.
 */
export async function lock(run: Run, session: Session): Promise<Survey> {
  const { lockWaitMs } = run.settings;
  await sendUntilLifted(() => session.query(settingStatement(RUN_SETTINGS, { isLocal: false })));
  const startedAt = performance.now();
  let told: string | undefined;
  let locked = false;
  try {
    for (;;) {
      locked ||= await tryLock(session);
      const found = await survey(session, run.committed);
      if (pendingIn(found).length === 0) return found;
      // graphile-migrate's own lock may still be held: by its command line, or by the server process of a client that died.
      const wanted = locked ? 'graphile-migrate' : 'filestore';
      const others = found.migrators.filter((one) => !('pid' in one && one.pid === found.pid));
      const holder = others.find((one) => one.lock === wanted);
      if (locked && holder === undefined) return found;
      const leftMs = startedAt + lockWaitMs - performance.now();
      if (leftMs <= 0) {
        // The first one holds the lock that the run waited for.
        const holders = [...others].sort((a, b) => Number(b.lock === wanted) - Number(a.lock === wanted));
        const message = paragraph(
          `Gave up after ${seconds(lockWaitMs - leftMs)}: ${describeLock(session.database.where, holders)}`,
          'Raise FILESTORE_MIGRATION_LOCK_WAIT_MS to wait longer; nothing is applied twice.',
        );
        throw new LockNotAcquiredError(message, holders[0] ?? UNKNOWN_HOLDER, run.progress.applied);
      }
      // No holder is found if the lock was freed after the attempt to get it, or if this role cannot see the holder.
      const waitedFor = holder ?? UNKNOWN_HOLDER;
      if (told === undefined || (holder !== undefined && told !== holderKey(holder))) {
        told = holderKey(waitedFor);
        run.emit({ type: 'waiting', for: 'lock', holder: waitedFor, atMostMs: lockWaitMs });
      }
      await delay(Math.min(POLL_MS * (0.5 + Math.random()), leftMs), undefined, { signal: run.signal });
    }
  } finally {
    run.progress.waitedForLockMs += performance.now() - startedAt;
  }
}

async function tryLock(session: Queryable): Promise<boolean> {
  const { rows } = await session.query<{ locked: boolean }>(
    `select pg_catalog.pg_try_advisory_lock(${MIGRATION_LOCK_KEY}) as locked`,
  );
  return rows[0]?.locked ?? false;
}

function describeLock(where: string, holders: readonly LockHolder[]): string {
  const who = [...new Set(holders.map(describeHolderAndSince))].join('; ') || 'its session cannot be seen';
  const remedies = holders.flatMap((one) => (one.kind === 'prepared transaction' ? [`${one.remedy}.`] : []));
  const prepared = [...new Set(remedies)];
  // A run has two sessions, one for each lock. If the run is dead, both must be ended.
  const pids = new Set(holders.flatMap((one) => ('pid' in one ? [one.pid] : [])));
  const ends = [...pids].map((pid) => `pg_terminate_backend(${pid})`);
  return paragraph(
    prepared.length > 0
      ? `the lock of migrations on ${where} is held by ${who}.`
      : `another migrator is running on ${where}: ${who}.`,
    ...prepared,
    ends.length === 0
      ? 'Run this again when it is done.'
      : `Run this again when it is done; if its program no longer runs, end it: select ${ends.join(', ')}.`,
  );
}
