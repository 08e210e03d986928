import type { QueryResult, QueryResultRow } from 'pg';

/** Anything that runs SQL: a test's database, or a connection. */
export interface Sql {
  query(text: string, values?: unknown[]): Promise<QueryResult<QueryResultRow> | readonly QueryResultRow[]>;
}

export interface Mount {
  readonly id: string;
  readonly rootId: string;
}

let mounts = 0;

/** Runs a statement that returns one row, and returns it. */
export async function one(sql: Sql, text: string, values: unknown[] = []): Promise<QueryResultRow> {
  const result = await sql.query(text, values);
  const rows = 'rows' in result ? result.rows : result;
  if (rows.length !== 1 || rows[0] === undefined)
    throw new Error(`${rows.length} rows instead of one: ${text}`);
  return rows[0];
}

export async function createMount(sql: Sql, kind: 'local' | 's3' = 'local'): Promise<Mount> {
  mounts += 1;
  const place = kind === 'local' ? { root_path: `/data/${mounts}` } : { bucket: `bucket-${mounts}` };
  const { id } = await one(
    sql,
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, bucket)
     values ($1, $2, $3, $4) returning id`,
    [`mount-${mounts}`, kind, place.root_path ?? null, place.bucket ?? null],
  );
  const root = await one(sql, 'select id from filestore.nodes where root_of_mount_id = $1', [id]);
  return { id, rootId: root.id };
}

/** Creates mounts with ids that a test knows. */
export async function createMountsWithIds(sql: Sql, ...ids: readonly number[]): Promise<void> {
  await sql.query(
    `insert into filestore.backend_mounts (id, mount_key, backend_kind, root_path) overriding system value
     select id, 'number-' || id, 'local', '/numbers/' || id from unnest($1::bigint[]) id`,
    [ids],
  );
}

/** Inserts a mount with the given columns and the key `media`, and returns its row. */
export function insertMount(sql: Sql, columns: Record<string, unknown>): Promise<QueryResultRow> {
  const all: Record<string, unknown> = { mount_key: 'media', ...columns };
  const names = Object.keys(all);
  return one(
    sql,
    `insert into filestore.backend_mounts (${names.join(', ')})
     values (${names.map((_, index) => `$${index + 1}`).join(', ')}) returning *`,
    Object.values(all),
  );
}

/** Creates a node and returns its id. */
export async function createNode(
  sql: Sql,
  mount: Mount,
  parentId: string,
  name: string,
  kind: 'file' | 'directory' = 'file',
): Promise<string> {
  const { id } = await one(
    sql,
    'insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values ($1, $2, $3, $4) returning id',
    [mount.id, parentId, name, kind],
  );
  return id;
}

export const createDirectory = (sql: Sql, mount: Mount, parentId: string, name: string) =>
  createNode(sql, mount, parentId, name, 'directory');

/** Creates directories inside each other, below the root, and returns their ids, top first. */
export async function createChain(sql: Sql, mount: Mount, ...names: readonly string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const name of names) ids.push(await createDirectory(sql, mount, ids.at(-1) ?? mount.rootId, name));
  return ids;
}

export async function pathOf(sql: Sql, id: string): Promise<string> {
  return (await one(sql, 'select path from filestore.nodes where id = $1', [id])).path;
}

export async function deleteNode(sql: Sql, id: string): Promise<void> {
  await sql.query("update filestore.nodes set state = 'deleted' where id = $1", [id]);
}

export async function moveNode(sql: Sql, id: string, parentId: string): Promise<void> {
  await sql.query('update filestore.nodes set parent_id = $2 where id = $1', [id, parentId]);
}

/** Folds until no deltas are pending. */
export async function foldAll(sql: Sql): Promise<void> {
  while ((await one(sql, 'select filestore.fold_rollups() as folded')).folded > 0);
}
