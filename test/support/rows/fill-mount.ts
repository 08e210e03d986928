import type pg from 'pg';

export interface FilledMount {
  readonly key: string;
  readonly id: string;
  /** A directory for each writer. */
  readonly directoryIds: readonly string[];
}

const FILES_PER_DIRECTORY = 200;

/**
 * Creates a mount with about this many nodes. A third of them has history, a twentieth is deleted, and the others have
 * sightings. Every tenth has a journal entry.
 */
export async function fillMount(
  client: pg.Client,
  key: string,
  nodes: number,
  writers: number,
): Promise<FilledMount> {
  const directories = Math.ceil(nodes / FILES_PER_DIRECTORY);
  const mount = await client.query<{ id: string }>(
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', '/srv/' || $1) returning id`,
    [key],
  );
  const id = mount.rows[0]?.id ?? '';
  await client.query(
    `select filestore.ensure_directory($1, 'd' || g) from generate_series(1, $2::integer) g`,
    [key, directories],
  );
  const own = await client.query<{ id: string }>(
    `select (filestore.ensure_directory($1, 'writer-' || g)).id from generate_series(1, $2::integer) g`,
    [key, writers],
  );
  await client.query('analyze filestore.nodes');
  const values = [id, nodes, directories];
  await client.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes, checksum, metadata)
     select d.backend_mount_id, d.id, 'file-' || g, 'file', g, 'sha256:' || encode(sha256(g::text::bytea), 'hex'),
            jsonb_build_object('number', g)
     from generate_series(1, $2::integer) g
     join filestore.nodes d on d.backend_mount_id = $1 and d.path = 'd' || 1 + g % $3::integer and d.live`,
    values,
  );
  await client.query(
    'update filestore.nodes set size_bytes = size_bytes + 1 where backend_mount_id = $1 and kind = $2 and size_bytes % 3 = 0',
    [id, 'file'],
  );
  await client.query(
    `update filestore.nodes set state = 'deleted' where backend_mount_id = $1 and kind = 'file' and size_bytes % 20 = 5`,
    [id],
  );
  await client.query(
    'select filestore.record_sightings(array(select id from filestore.nodes where backend_mount_id = $1 and live))',
    [id],
  );
  await client.query(
    `insert into filestore.journal_entries (backend_mount_id, command, status, idempotency_key, primary_node_id)
     select n.backend_mount_id, 'scan', 'running', 'scan-' || n.id, n.id
     from filestore.nodes n where n.backend_mount_id = $1 and n.id % 10 = 0`,
    [id],
  );
  await client.query(
    `update filestore.journal_entries set status = 'succeeded', result = '{}'
     where backend_mount_id = $1 and primary_node_id % 100 <> 0`,
    [id],
  );
  await client.query('analyze');
  return { key, id, directoryIds: own.rows.map((row) => row.id) };
}
