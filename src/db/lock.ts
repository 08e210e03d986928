import { setTimeout as delay } from 'node:timers/promises';
import type { LockHolder } from '../errors.ts';
import { keyOf, UNKNOWN_HOLDER } from './lock-holder.ts';
import { MIGRATION_LOCK_KEY } from './lock-keys.ts';
import type { Preflight } from './preflight.ts';
import type { Queryable } from './session.ts';

/** Interval of polling: low load, and no noticeable delay. */
const POLL_MS = 200;

export interface LockWait {
  readonly session: Queryable;
  /** Reads the database again. */
  readonly look: () => Promise<Preflight>;
  /** True if the other migrator applied everything. */
  readonly isDone: (preflight: Preflight) => boolean;
  /** Milliseconds to wait at most. */
  readonly waitMs: number;
  readonly signal: AbortSignal;
  /** Called when the lock is found taken, and whenever its holder changes. */
  readonly onWaiting: (holder: LockHolder) => void;
}

/** How the wait ended. */
export type LockOutcome =
  | { readonly type: 'acquired'; readonly preflight: Preflight; readonly waitedMs: number }
  | { readonly type: 'not-needed'; readonly preflight: Preflight; readonly waitedMs: number }
  | {
      readonly type: 'gave-up';
      /** All holders of the two locks. The first one holds the lock that the run waited for. */
      readonly holders: readonly LockHolder[];
      readonly waitedMs: number;
    };

/**
 * Waits until this session holds the lock of migrations. It polls instead of calling pg_advisory_lock: a waiting
 * statement holds a snapshot, and "create index concurrently" in the holder's session would wait for that snapshot,
 * so both would hang. The lock ends with the session.
 */
export async function waitForLock(wait: LockWait): Promise<LockOutcome> {
  const startedAt = performance.now();
  let told: string | undefined;
  let locked = false;
  for (;;) {
    locked ||= await tryLock(wait.session);
    const preflight = await wait.look();
    const waitedMs = performance.now() - startedAt;
    if (wait.isDone(preflight)) return { type: 'not-needed', preflight, waitedMs };
    // Even with our lock, graphile-migrate's command line may be at work, or a server process whose client died.
    const wanted = locked ? 'graphile-migrate' : 'filestore';
    const others = preflight.migrators.filter((one) => !('pid' in one && one.pid === preflight.pid));
    const holder = others.find(({ lock }) => lock === wanted);
    if (locked && holder === undefined) return { type: 'acquired', preflight, waitedMs };
    if (waitedMs >= wait.waitMs) {
      const holders = [...others].sort((a, b) => Number(b.lock === wanted) - Number(a.lock === wanted));
      return { type: 'gave-up', holders, waitedMs };
    }
    const waitedFor = holder ?? UNKNOWN_HOLDER;
    if (told !== keyOf(waitedFor)) {
      told = keyOf(waitedFor);
      wait.onWaiting(waitedFor);
    }
    const pause = Math.min(POLL_MS * (0.5 + Math.random()), wait.waitMs - waitedMs);
    await delay(pause, undefined, { signal: wait.signal });
  }
}

async function tryLock(session: Queryable): Promise<boolean> {
  const { rows } = await session.query<{ locked: boolean }>(
    `select pg_catalog.pg_try_advisory_lock(${MIGRATION_LOCK_KEY}) as locked`,
  );
  return rows[0]?.locked ?? false;
}
