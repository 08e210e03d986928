import { setTimeout as delay } from 'node:timers/promises';
import type { LockHolder } from '../errors.ts';
import type { IndexBuild } from './events.ts';
import {
  type HolderRow,
  isHeldByPrepared,
  preparedHolder,
  readHolder,
  sessionHolder,
} from './lock-holder.ts';
import type { Queryable } from './session.ts';

const LOOK_EVERY_MS = 1_000;

/** The state of a migration's session, seen from another session. */
export interface Sight {
  readonly blockedBy: readonly LockHolder[];
  readonly indexBuild: IndexBuild | null;
}

type SightRow = Omit<Sight, 'blockedBy'> & { readonly blockedBy: readonly HolderRow[] };

export interface WatchOptions {
  readonly session: Queryable;
  /** Process id of the session to watch; undefined until it is known. */
  readonly pid: () => number | undefined;
  /** Ends the watch. */
  readonly signal: AbortSignal;
  readonly onSight: (sight: Sight) => void;
}

/**
 * Watches a session every second until stopped: which sessions it waits for, and the progress of its index build.
 * Without the right to see other roles' statistics, it reports less.
 */
export async function watchSession({ session, pid, signal, onSight }: WatchOptions): Promise<void> {
  for (;;) {
    await delay(LOOK_EVERY_MS, undefined, { signal, ref: false }).catch(() => undefined);
    if (signal.aborted) return;
    const watched = pid();
    if (watched === undefined) continue;
    const { rows } = await session.query<SightRow>(
      `select
         (
           select coalesce(pg_catalog.json_agg(b.holder), '[]')
           from (
             select ${sessionHolder('a')} as holder
             -- A process that blocks in several ways comes as often.
             from (
               select distinct pid from pg_catalog.unnest(pg_catalog.pg_blocking_pids(${watched})) u (pid)
             ) u
             left join pg_catalog.pg_stat_activity a on a.pid = u.pid
             -- The server's number for whatever was prepared.
             where u.pid <> 0
             union all
             select ${preparedHolder('p')}
             from pg_catalog.pg_prepared_xacts p
             where exists (
               select
               from pg_catalog.pg_locks w
               join pg_catalog.pg_locks l on
                 (l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid, l.objsubid)
                 is not distinct from
                 (w.locktype, w.database, w.relation, w.page, w.tuple, w.virtualxid, w.transactionid, w.classid, w.objid, w.objsubid)
               where w.pid = ${watched} and not w.granted and l.granted and ${isHeldByPrepared('l', 'p')}
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
           where p.pid = ${watched} and p.phase is not null
         ) as "indexBuild"`,
    );
    const sight = rows[0];
    if (sight === undefined || signal.aborted) continue;
    onSight({ ...sight, blockedBy: sight.blockedBy.map(readHolder) });
  }
}
