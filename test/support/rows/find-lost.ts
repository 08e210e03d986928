import type pg from 'pg';
import type { Acknowledged } from './file-writer.ts';

const SHOWN_FAULTS = 5;

/** Looks in a database for everything that its servers have told the writers. @returns what is missing, one line each. */
export async function findLost(
  database: pg.Client,
  writers: readonly Acknowledged[],
): Promise<readonly string[]> {
  const deleted = new Set(writers.flatMap((writer) => writer.deletedIds));
  const versions = writers.flatMap((writer) => writer.versions).filter(({ id }) => !deleted.has(id));
  const lost = await database.query<{ key: string }>(
    `select w.id || '/' || w.version as key
     from unnest($1::bigint[], $2::integer[], $3::bigint[]) w (id, version, size)
     where not exists (
       select from filestore.view_filestore_node_versions v
       where v.id = w.id and v.version = w.version and v.size_bytes = w.size
     )`,
    [versions.map(({ id }) => id), versions.map(({ version }) => version), versions.map(({ size }) => size)],
  );
  const commands = await database.query<{ key: string }>(
    `select k.key from unnest($1::text[]) k (key)
     where 1 <> (select count(*) from filestore.journal_entries j
                 where j.command = 'overwrite' and j.idempotency_key = k.key and j.status = 'succeeded')`,
    [writers.flatMap((writer) => writer.commandKeys)],
  );
  const sightings = await database.query<{ key: string }>(
    `select k.id::text as key from unnest($1::bigint[]) k (id)
     where not exists (select from filestore.node_sightings s where s.node_id = k.id)`,
    [writers.flatMap((writer) => writer.seenIds)],
  );
  const keys = (result: { readonly rows: readonly { readonly key: string }[] }) =>
    result.rows.map(({ key }) => key);
  return [
    ...summary(keys(lost), 'acknowledged versions are not in the database'),
    ...summary(keys(commands), 'acknowledged commands did not succeed exactly once'),
    ...summary(keys(sightings), 'acknowledged sightings are not in the database'),
  ];
}

/** What is wrong with some rows, in one line; none without rows. */
export function summary(keys: readonly string[], what: string): readonly string[] {
  return keys.length === 0 ? [] : [`${keys.length} ${what}: ${keys.slice(0, SHOWN_FAULTS).join(', ')}`];
}
