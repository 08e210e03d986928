import { setTimeout as delay } from 'node:timers/promises';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import type { GraphileThread } from '../graphile/thread.ts';
import {
  describeHolders,
  type HolderRow,
  isHeldByPrepared,
  preparedHolder,
  readHolder,
  sessionHolder,
} from '../session/lock-holder.ts';
import type { Session } from '../session/session.ts';
import type { IndexBuild } from './events.ts';
import type { Run } from './run-state.ts';

const LOOK_MS = 50;
const REPORT_EVERY_MS = 1_000;

/** The state of a migration's session, seen from another session. */
interface SightRow {
  readonly blockedBy: readonly HolderRow[];
  readonly indexBuild: IndexBuild | null;
}

/** The migration that is being applied, and the sessions that block it. */
export class Watch {
  current:
    | { readonly migration: CommittedMigration; readonly isConcurrent: boolean; readonly startedAt: number }
    | undefined;
  /** The sessions that last blocked it, in words; empty if there were none. */
  blockers = '';
  blockedSince: number | undefined;
  /** The migration without a transaction that was blocked for longer than the run may wait, and cancelled. */
  gaveUpOn: CommittedMigration | undefined;

  /** A migration begins. The blockers of the one before it stay known until then. */
  begin(migration: CommittedMigration, isConcurrent: boolean): void {
    this.current = { migration, isConcurrent, startedAt: performance.now() };
    this.blockers = '';
    this.blockedSince = undefined;
  }
}

/**
 * Watches the thread's session until the signal is aborted: which sessions it waits for, and the progress of
 * its index build. Without the right to see other roles' statistics, it reports less.
 * @param giveUp Called once, when the run has waited long enough for blocking sessions.
 */
export async function watchBlockers(
  run: Run,
  session: Session,
  watch: Watch,
  thread: GraphileThread,
  signal: AbortSignal,
  giveUp: () => void,
): Promise<void> {
  let reportedAt = 0;
  for (;;) {
    await delay(untilNextLook(watch), undefined, { signal, ref: false }).catch(() => undefined);
    if (signal.aborted) return;
    const pid = thread.pid();
    const { current } = watch;
    if (pid === undefined || current === undefined) continue;
    // Concurrent index work waits for the snapshots of others, and each look has one.
    if (current.isConcurrent && performance.now() - current.startedAt < REPORT_EVERY_MS) continue;
    const [sight] = (await session.query<SightRow>(sightOf(pid))).rows;
    if (sight === undefined || signal.aborted || watch.gaveUpOn !== undefined) continue;
    // Another migration may have begun during the look, and this one may have waited for others.
    if (current !== watch.current) continue;
    const blockedBy = sight.blockedBy.map(readHolder);
    // Kept when the blockers are no longer seen: the migration may just have failed because of them.
    if (blockedBy.length > 0) watch.blockers = describeHolders(blockedBy);
    const isDue = performance.now() - Math.max(reportedAt, current.startedAt) >= REPORT_EVERY_MS;
    if (isDue && (blockedBy.length > 0 || sight.indexBuild !== null)) {
      reportedAt = performance.now();
      const { filename } = current.migration;
      const runningMs = performance.now() - current.startedAt;
      run.emit({ type: 'progress', filename, runningMs, blockedBy, indexBuild: sight.indexBuild });
    }
    // A migration in a transaction has its lock timeout; the others are watched.
    if (current.migration.transaction || blockedBy.length === 0) {
      watch.blockedSince = undefined;
      continue;
    }
    watch.blockedSince ??= performance.now();
    if (performance.now() - watch.blockedSince < run.settings.lockWaitMs) continue;
    watch.gaveUpOn = current.migration;
    giveUp();
  }
}

/**
 * Milliseconds. The first waits for locks are short, and most migrations wait at their beginning. So looks are frequent
 * at first, to see each of these waits, and become rare later.
 */
function untilNextLook({ current }: Watch): number {
  if (current === undefined) return LOOK_MS;
  if (current.isConcurrent) return REPORT_EVERY_MS;
  return Math.min(Math.max(LOOK_MS, (performance.now() - current.startedAt) / 10), REPORT_EVERY_MS);
}

const LOCKED = 'locktype database relation page tuple virtualxid transactionid classid objid objsubid';

/** @param l Alias of a row of pg_locks. */
const lockedObject = (l: string) => `(${LOCKED.split(' ').map((column) => `${l}.${column}`)})`;

const sightOf = (pid: number) => `select
  (
    select coalesce(pg_catalog.json_agg(b.holder), '[]')
    from (
      select ${sessionHolder('a')} as holder
      -- Lists a process once for each lock with which it blocks.
      from (
        select distinct pid from pg_catalog.unnest(pg_catalog.pg_blocking_pids(${pid})) u (pid)
      ) u
      left join pg_catalog.pg_stat_activity a on a.pid = u.pid
      -- 0 stands for prepared transactions. A concurrent build also waits for the statement of this look.
      where u.pid not in (0, pg_catalog.pg_backend_pid())
      union all
      select ${preparedHolder('p')}
      from pg_catalog.pg_prepared_xacts p
      where exists (
        select
        from pg_catalog.pg_locks w
        join pg_catalog.pg_locks l on
          ${lockedObject('l')} is not distinct from ${lockedObject('w')}
        where w.pid = ${pid} and not w.granted and l.granted and ${isHeldByPrepared('l', 'p')}
      )
    ) b
  ) as "blockedBy",
  (
    select pg_catalog.json_build_object(
      'phase', p.phase,
      'done', greatest(p.blocks_done, p.tuples_done, p.lockers_done),
      'total', greatest(p.blocks_total, p.tuples_total, p.lockers_total)
    )
    from pg_catalog.pg_stat_progress_create_index p
    where p.pid = ${pid} and p.phase is not null
  ) as "indexBuild"`;
