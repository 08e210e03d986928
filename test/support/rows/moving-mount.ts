import type { TestDatabase } from '../databases/test-database.ts';
import { createDirectory, createMount, createNode, deleteNode, type Mount, one, type Sql } from './nodes.ts';
import { keyOf } from './writer-functions.ts';

/** The refusal of a writer whose mount moves to another server. */
export const MOVING = { code: 'FS409', constraint: 'backend_mounts_moving' };

/** A mount with something in each table that a move copies. */
export interface MovingMount {
  readonly mount: Mount;
  readonly key: string;
  readonly directory: string;
  readonly file: string;
  readonly tombstone: string;
  /** A command that has begun. */
  readonly entry: string;
}

export async function createMovingMount(sql: Sql): Promise<MovingMount> {
  const mount = await createMount(sql);
  const key = await keyOf(sql, mount.id);
  const directory = await createDirectory(sql, mount, mount.rootId, 'd');
  const file = await createNode(sql, mount, directory, 'f');
  const tombstone = await createNode(sql, mount, directory, 'gone');
  await deleteNode(sql, tombstone);
  const begin = "select (b.entry).id from filestore.begin_command('scan', mount_id => $1) b";
  const { id: entry } = await one(sql, begin, [mount.id]);
  return { mount, key, directory, file, tombstone, entry };
}

/** The number of the server that a mount moves to. */
const ELSEWHERE = 7;

export const publishMount = (sql: Sql, key: string) =>
  sql.query('select filestore.start_move($1, $2)', [key, ELSEWHERE]);

/** As close_mount does it, which needs a target. */
export async function closeMount(sql: Sql, { id }: Mount): Promise<void> {
  await sql.query("update filestore.moves set step = 'closed', closed_until = now() + interval '1 hour'");
  await sql.query('update filestore.backend_mounts set held_by = -1 where id = $1', [id]);
}

/** The number of the database that takes the mount's writes; null if it does not move. */
export async function holderOf(sql: Sql, { id }: Mount): Promise<number | null> {
  return (await one(sql, 'select held_by from filestore.backend_mounts where id = $1', [id])).held_by;
}

export async function dropPublications(database: TestDatabase): Promise<void> {
  const superuser = await database.connectAsSuperuser();
  await superuser.query(
    "do $$ begin execute (select coalesce(string_agg(format('drop publication %I', pubname), '; '), 'select') from pg_publication); end $$",
  );
}
