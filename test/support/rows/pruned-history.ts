import type { TestDatabase } from '../databases/test-database.ts';
import { until } from '../until.ts';
import { type Mount, one, type Sql } from './nodes.ts';

export const PRUNE = 'select filestore.prune_history($1, $2, $3) as pruned';
export const PRUNED = { code: 'FS404', constraint: 'snapshots_pruned' };

/** One call of prune_history; by default it removes all superseded versions. */
export async function prune(
  sql: Sql,
  olderThan: string | null = '0',
  keep: number | null = 0,
  batch: number | null = 1000,
): Promise<number> {
  return (await one(sql, PRUNE, [olderThan, keep, batch])).pruned;
}

/** Gives a node that many more versions, and waits until the last one is in the past. */
export async function overwrite(sql: Sql, id: string, times: number): Promise<void> {
  for (let time = 0; time < times; time++) {
    await sql.query('update filestore.nodes set size_bytes = size_bytes + 1 where id = $1', [id]);
  }
  await untilPast(sql, id);
}

/** A version lasts at least a millisecond, so quick changes run ahead of the clock. */
export async function untilPast(sql: Sql, id: string): Promise<void> {
  const past =
    "select updated_at < clock_timestamp() - interval '2 ms' as past from filestore.nodes where id = $1";
  await until(async () => (await one(sql, past, [id])).past);
}

/** The superseded versions of a node that the history has. */
export async function pastVersions(database: TestDatabase, id: string): Promise<readonly number[]> {
  const rows = await database.query<{ version: number }>(
    'select version from filestore.snapshots where id = $1 order by 1',
    [id],
  );
  return rows.map(({ version }) => version);
}

export async function horizonOf(sql: Sql, { id }: Mount): Promise<Date | null> {
  const mount = await one(sql, 'select history_horizon from filestore.backend_mounts where id = $1', [id]);
  return mount.history_horizon;
}
