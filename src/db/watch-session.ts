import { setTimeout as delay } from 'node:timers/promises';
import type { ServerProcess } from '../errors.ts';
import type { IndexBuild } from './events.ts';
import type { Queryable } from './session.ts';

const LOOK_EVERY_MS = 1_000;

/** What a migration's session is doing, as another session sees it. */
export interface Sight {
  readonly blockedBy: readonly ServerProcess[];
  readonly indexBuild: IndexBuild | null;
}

export interface WatchOptions {
  readonly session: Queryable;
  /** Process id of the session to watch; undefined while it has none. */
  readonly pid: () => number | undefined;
  /** Ends the watch. */
  readonly signal: AbortSignal;
  readonly onSight: (sight: Sight) => void;
}

/**
 * Looks at a session every second until told to stop: whom it waits for, and how far its index build is. Without the
 * right to see other roles' statistics the server tells less, and so does this.
 */
export async function watchSession({ session, pid, signal, onSight }: WatchOptions): Promise<void> {
  for (;;) {
    await delay(LOOK_EVERY_MS, undefined, { signal, ref: false }).catch(() => undefined);
    if (signal.aborted) return;
    const watched = pid();
    if (watched === undefined) continue;
    const { rows } = await session.query<Sight>(
      `select
         (
           select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
             'pid', b.pid, 'role', a.usename, 'applicationName', a.application_name
           )), '[]')
           -- A process that blocks in several ways comes as often.
           from (
             select distinct pid from pg_catalog.unnest(pg_catalog.pg_blocking_pids(${watched})) u (pid)
           ) b
           left join pg_catalog.pg_stat_activity a on a.pid = b.pid
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
    if (sight !== undefined && !signal.aborted) onSight(sight);
  }
}
