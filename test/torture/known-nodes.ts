import type { Client } from 'pg';
import type { Random } from './seeded-random.ts';

export interface Mount {
  readonly id: string;
  readonly key: string;
  readonly rootId: string;
}

export interface NodeRef {
  readonly id: string;
  readonly mountId: string;
  readonly kind: 'file' | 'directory';
  readonly path: string;
  readonly version: number;
}

/** A file that several workers create with one idempotency key. */
export interface KeyedFile {
  readonly key: string;
  readonly directory: NodeRef;
  readonly name: string;
}

/** A tree that any worker continues to delete in batches, and may restore in between. */
export interface BatchDelete {
  readonly node: NodeRef;
  readonly moment: string;
}

/**
 * The nodes that workers choose from: the tree as it was a moment ago, so that their choices collide, and
 * sometimes no longer exist.
 */
export interface Scene {
  readonly mounts: readonly Mount[];
  /** A mount that comes and goes. Its nodes are not among those below. */
  passing: Mount | undefined;
  directories: readonly NodeRef[];
  files: readonly NodeRef[];
  tombstones: readonly NodeRef[];
  keyed: readonly KeyedFile[];
  batches: readonly BatchDelete[];
}

const MANY_NODES = 1500;

/** Whether the tree has reached its maximum size. */
export function isFull(scene: Scene): boolean {
  return scene.directories.length + scene.files.length > MANY_NODES;
}

/** Few names, so that many writers choose the same one. */
export const fileName = (random: Random) => `f${random.between(0, 24)}`;
export const directoryName = (random: Random) => `d${random.between(0, 7)}`;

export function anyMount(scene: Scene, random: Random): Mount {
  const mount = random.pick(scene.mounts);
  if (mount === undefined) throw new Error('there is no mount');
  return mount;
}

/** A directory for new nodes: sometimes the root, and none whose path is near the maximum length. */
export function anyDirectory(scene: Scene, random: Random, mount = anyMount(scene, random)): NodeRef {
  const root: NodeRef = { id: mount.rootId, mountId: mount.id, kind: 'directory', path: '', version: 1 };
  if (random.chance(0.1)) return root;
  const found = random.pickEarly(scene.directories.filter((directory) => directory.mountId === mount.id));
  return found === undefined || found.path.length > 600 ? root : found;
}

export function anyLive(scene: Scene, random: Random): NodeRef | undefined {
  return random.pickEarly(random.chance(0.7) ? scene.files : scene.directories);
}

/** Reads the tree again. */
export async function refresh(scene: Scene, client: Client): Promise<void> {
  const { rows } = await client.query<NodeRef & { live: boolean }>(
    `(select id, backend_mount_id as "mountId", kind, path, version, live
      from filestore.nodes
      where live and parent_id is not null and backend_mount_id = any ($1) order by id limit 4000)
     union all
     (select n.id, n.backend_mount_id, n.kind, n.path, n.version, n.live
      from filestore.nodes n join filestore.nodes p on p.id = n.parent_id
      where not n.live and (p.live or random() < 0.1) and n.backend_mount_id = any ($1)
      order by n.deleted_at desc limit 400)`,
    [scene.mounts.map(({ id }) => id)],
  );
  scene.directories = rows.filter((row) => row.live && row.kind === 'directory');
  scene.files = rows.filter((row) => row.live && row.kind === 'file');
  scene.tombstones = rows.filter((row) => !row.live);
}
