import type { Client } from 'pg';
import { foldAll } from './folding.ts';

/** A mount with files in directories `d1`, `d2`, … next to each other, at depth 5. */
export interface Tree {
  readonly mountId: string;
  readonly rootId: string;
  /** The directory that contains the others. */
  readonly topId: string;
  readonly topPath: string;
  readonly directories: number;
  /** Directory number n has the id `beforeFirst + n`. */
  readonly beforeFirst: number;
}

const ABOVE = ['archive', 'projects', '2024', 'data'];

export async function createTree(client: Client, directories: number): Promise<Tree> {
  const { rows: mounts } = await client.query(
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path)
     values ('bench', 'local', '/srv/bench')
     returning id`,
  );
  const mountId: string = mounts[0].id;
  const { rows: roots } = await client.query('select id from filestore.nodes where root_of_mount_id = $1', [
    mountId,
  ]);
  let topId: string = roots[0].id;
  for (const name of ABOVE) {
    const { rows } = await client.query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       values ($1, $2, $3, 'directory')
       returning id`,
      [mountId, topId, name],
    );
    topId = rows[0].id;
  }
  await client.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'd' || g, 'directory'
     from generate_series(1, $3::integer) g
     order by g`,
    [mountId, topId, directories],
  );
  const { rows: first } = await client.query(
    `select id, id + $2 - 1 = (select max(id) from filestore.nodes) as in_order
     from filestore.nodes where parent_id = $1 and name = 'd1'`,
    [topId, directories],
  );
  if (first[0]?.in_order !== true) throw new Error('the ids of the directories are not in order');
  return {
    mountId,
    rootId: roots[0].id,
    topId,
    topPath: ABOVE.join('/'),
    directories,
    beforeFirst: Number(first[0].id) - 1,
  };
}

/** Writes rows of files, spread evenly over the tree's directories, to bench.files. */
export async function stageFiles(client: Client, tree: Tree, files: number): Promise<void> {
  await client.query('create schema if not exists bench');
  await client.query('drop table if exists bench.files');
  await client.query(
    `create table bench.files as
     select
       $1::bigint                                       as backend_mount_id,
       $2::bigint + 1 + g % $4::integer                 as parent_id,
       $3::text || '/d' || 1 + g % $4::integer          as parent_path,
       'file-' || g                                     as name,
       (1000 + g)::bigint                               as size_bytes,
       'sha256:' || md5(g::text) || md5((-g)::text)     as checksum,
       timestamptz '2024-01-01' + g * interval '1 s'    as last_modified_at
     from generate_series(1, $5::integer) g`,
    [tree.mountId, tree.beforeFirst, tree.topPath, tree.directories, files],
  );
  await client.query('vacuum analyze bench.files');
}

/** Inserts the rows of bench.files with one statement, with the parent's path given. `label` makes names unique. */
export async function loadFiles(client: Client, label: string): Promise<void> {
  await client.query(
    `insert into filestore.nodes
       (backend_mount_id, parent_id, parent_path, parent_live, name, kind, size_bytes, checksum, last_modified_at)
     select backend_mount_id, parent_id, parent_path, true, name || $1, 'file', size_bytes, checksum, last_modified_at
     from bench.files`,
    [label],
  );
}

export async function createFilledTree(client: Client, directories: number, files: number): Promise<Tree> {
  const tree = await createTree(client, directories);
  await stageFiles(client, tree, files);
  await loadFiles(client, '');
  await foldAll(client);
  await client.query('vacuum analyze');
  return tree;
}
