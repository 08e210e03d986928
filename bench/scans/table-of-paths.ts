import type { Client } from 'pg';
import type { Entry } from './generated-disk.ts';
import { observe, sendBatches } from './scan-disk.ts';
import type { Usage } from './usage.ts';

/** A plain catalogue: its key is the path, and a renamed file is another row. It has no history, totals or rules. */
export async function createTableOfPaths(client: Client): Promise<void> {
  await client.query('create schema if not exists bench');
  await client.query(
    `create table bench.paths (
       path             text collate "C" primary key,
       kind             text,
       size_bytes       bigint,
       last_modified_at timestamptz,
       backend_identity text,
       is_missing       boolean not null default false,
       seen_at          timestamptz not null
     )`,
  );
}

/** Writes each entry by "insert … on conflict", and then marks the rows that were not written as missing. */
export async function writeTableOfPaths(
  clients: readonly Client[],
  batches: Iterator<readonly Entry[]>,
): Promise<Usage> {
  const [client] = clients as readonly [Client, ...Client[]];
  const { rows } = await client.query('select clock_timestamp() as pass');
  const { pass } = rows[0];
  return observe(clients, async () => {
    await sendBatches(clients, batches, (sender, entries) =>
      sender.query({
        name: 'upsert',
        text: `insert into bench.paths (path, kind, size_bytes, last_modified_at, backend_identity, seen_at)
               select path, kind, size_bytes, last_modified_at, backend_identity, $2
               from jsonb_to_recordset($1) as e (
                 path text, kind text, size_bytes bigint, last_modified_at timestamptz, backend_identity text
               )
               on conflict (path) do update
               set kind             = excluded.kind,
                   size_bytes       = excluded.size_bytes,
                   last_modified_at = excluded.last_modified_at,
                   backend_identity = excluded.backend_identity,
                   is_missing       = false,
                   seen_at          = excluded.seen_at`,
        values: [entries, pass],
      }),
    );
    await client.query('update bench.paths set is_missing = true where seen_at < $1 and not is_missing', [
      pass,
    ]);
  });
}
