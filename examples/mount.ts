import { createHash } from 'node:crypto';
import { lstat, opendir } from 'node:fs/promises';
import { basename, join, relative } from 'node:path';
import type { BackendMountRow } from '../schema/rows.d.ts';
import { getPool } from '../src/index.ts';
import { hasBirthTimes } from './identity.ts';

/** The part of a mount that a folder is. */
export interface MountedFolder {
  readonly mountId: string;
  readonly mountKey: string;
  /** Path of the folder below the mount's root; '' for the root. */
  readonly path: string;
  readonly withBirthTimes: boolean;
}

type Mount = Pick<BackendMountRow, 'id' | 'mount_key' | 'root_path' | 'config'>;

/** Finds the mount that a folder is in, or registers the folder as a mount. */
export async function openFolder(folder: string): Promise<MountedFolder> {
  const mount = (await findMount(folder)) ?? (await registerMount(folder));
  return {
    mountId: mount.id,
    mountKey: mount.mount_key,
    path: relative(mount.root_path ?? folder, folder),
    withBirthTimes: await knowBirthTimes(mount, folder),
  };
}

async function findMount(folder: string): Promise<Mount | undefined> {
  const { rows } = await getPool().query<Mount>(
    `select id, mount_key, root_path, config
     from filestore.backend_mounts
     where backend_kind = 'local'
       and (root_path = $1 or starts_with($1, rtrim(root_path, '/') || '/'))`,
    [folder],
  );
  return rows[0];
}

async function registerMount(folder: string): Promise<Mount> {
  await refuseMountsBelow(folder);
  const hash = createHash('sha256').update(folder).digest('hex').slice(0, 8);
  const name = basename(folder)
    .replace(/[^A-Za-z0-9._-]/g, '-')
    .replace(/^[^A-Za-z0-9]+/, '')
    .slice(0, 100);
  const { rows } = await getPool().query<Mount>(
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path)
     values ($1, 'local', $2)
     returning id, mount_key, root_path, config`,
    [`${name || 'folder'}-${hash}`, folder],
  );
  if (rows[0] === undefined) throw new Error(`The folder ${folder} was not registered as a mount.`);
  return rows[0];
}

/** A file belongs to one mount. */
async function refuseMountsBelow(folder: string): Promise<void> {
  const { rows } = await getPool().query<Pick<BackendMountRow, 'root_path'>>(
    `select root_path
     from filestore.backend_mounts
     where backend_kind = 'local'
       and starts_with(root_path, rtrim($1, '/') || '/')
     order by root_path
     limit 10`,
    [folder],
  );
  if (rows.length === 0) return;
  const below = rows.map(({ root_path }) => `  ${root_path}`).join('\n');
  throw new Error(
    `${folder} contains folders that are mounts of the catalogue. Scan these, or erase the mounts with filestore.erase_mount.\n${below}`,
  );
}

/** Whether the file system has birth times. The first answer is kept, since another one would change all identities. */
async function knowBirthTimes(mount: Mount, folder: string): Promise<boolean> {
  const known = mount.config.birth_times;
  if (typeof known === 'boolean') return known;
  const answer = await askBirthTimes(folder);
  if (answer === undefined) return true;
  await getPool().query('update filestore.backend_mounts set config = config || $2 where id = $1', [
    mount.id,
    { birth_times: answer },
  ]);
  return answer;
}

/** Undefined for a new, empty folder, because its birth is its last change. */
async function askBirthTimes(folder: string): Promise<boolean | undefined> {
  if (hasBirthTimes(await lstat(folder, { bigint: true }))) return true;
  for await (const { name } of await opendir(folder)) {
    return hasBirthTimes(await lstat(join(folder, name), { bigint: true }));
  }
  return undefined;
}
