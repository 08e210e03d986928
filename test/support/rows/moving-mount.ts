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
