import type { Client, QueryResult } from 'pg';
import { secondsOf } from '../measure.ts';
import type { Entry } from './generated-disk.ts';

/** Of the nodes that list_unseen looks at. */
const PAGE = 10_000;

/**
 * Follows a disk without a scan: looks up the paths of a batch, writes what differs path by path, records the sightings of the
 * others, and marks what was not seen as missing. Each batch is a transaction; a service that looks at one path after the other
 * has batches of 1. Returns the seconds that it takes.
 */
export function followByPath(
  client: Client,
  mountKey: string,
  batches: Iterable<readonly Entry[]>,
): Promise<number> {
  return secondsOf(async () => {
    const { rows } = await client.query(
      'select id, clock_timestamp() as pass from filestore.backend_mounts where mount_key = $1',
      [mountKey],
    );
    const { id: mountId, pass } = rows[0];
    for (const batch of batches) {
      await inTransaction(client, () => followBatch(client, mountKey, mountId, batch));
    }
    await markUnseen(client, mountKey, mountId, pass);
  });
}

async function followBatch(
  client: Client,
  mountKey: string,
  mountId: string,
  batch: readonly Entry[],
): Promise<void> {
  const { rows } = await client.query({
    name: 'lookup',
    text: `select id, path, size_bytes, last_modified_at from filestore.nodes
           where backend_mount_id = $1 and live and path = any ($2)`,
    values: [mountId, batch.map(({ path }) => path)],
  });
  const known = new Map(rows.map((row) => [row.path, row]));
  const seen: string[] = [];
  for (const entry of batch) {
    const node = known.get(entry.path);
    if (node !== undefined && isEqual(node, entry)) seen.push(node.id);
    else seen.push(...(await write(client, mountKey, entry)));
  }
  await client.query({
    name: 'see',
    text: 'select filestore.record_sightings($1, reconciled_at => clock_timestamp())',
    values: [seen],
  });
}

function isEqual(node: { size_bytes: string; last_modified_at: Date | null }, entry: Entry): boolean {
  return (
    entry.kind === 'directory' ||
    (Number(node.size_bytes) === entry.size_bytes &&
      node.last_modified_at?.toISOString() === entry.last_modified_at)
  );
}

/** Returns the id of a directory. A file has its sighting already. */
async function write(client: Client, mountKey: string, entry: Entry): Promise<readonly string[]> {
  const { path, kind, size_bytes: size, last_modified_at: modified } = entry;
  if (kind === 'directory') {
    const { rows } = await client.query({
      name: 'ensure',
      text: 'select id from filestore.ensure_directory($1, $2)',
      values: [mountKey, path],
    });
    return [rows[0].id];
  }
  await client.query({
    name: 'upsert',
    text: `select from filestore.upsert_file($1, $2, $3, last_modified_at => $4, last_seen_at => clock_timestamp())`,
    values: [mountKey, path, size, modified],
  });
  return [];
}

interface Page {
  readonly node_ids: readonly string[];
  readonly next_path: string | null;
}

async function markUnseen(client: Client, mountKey: string, mountId: string, pass: Date): Promise<void> {
  let after: string | null = '';
  while (after !== null) {
    const found: QueryResult<Page> = await client.query<Page>(
      'select node_ids, next_path from filestore.list_unseen($1, $2, $3, max_nodes => $4)',
      [mountKey, pass, after, PAGE],
    );
    const page: Page | undefined = found.rows[0];
    const ids = page?.node_ids ?? [];
    after = page?.next_path ?? null;
    if (ids.length === 0) continue;
    await inTransaction(client, async () => {
      await client.query('select filestore.lock_tree($1, exclusive => false)', [mountId]);
      await client.query(
        `update filestore.nodes set state = 'missing'
         where id in (select id from filestore.nodes where id = any ($1) and live and path <> '' order by id for no key update)`,
        [ids],
      );
    });
  }
}

async function inTransaction(client: Client, work: () => Promise<void>): Promise<void> {
  await client.query('begin');
  await work();
  await client.query('commit');
}
