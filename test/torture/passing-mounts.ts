import type { Client } from 'pg';
import { fileName, type Mount, type Scene } from './known-nodes.ts';
import type { Random } from './seeded-random.ts';

const FILES = Array.from({ length: 60 }, (_, index) => ({
  path: `d${index % 7}/f${index}`,
  size_bytes: index,
}));

/** Takes the next step of a mount that comes and goes: it is created, moves to another server and back, and is erased. */
export async function passMount(scene: Scene, client: Client, random: Random): Promise<void> {
  const mount = await readPassing(client);
  if (mount === undefined) {
    scene.passing = await createPassing(client);
  } else if (mount.isMoving) {
    await client.query('call filestore.cancel_move($1)', [mount.key]);
  } else if (mount.isErasing) {
    await client.query('call filestore.erase_mount($1, $2)', [mount.key, random.between(1, 30)]);
  } else if (random.chance(0.5)) {
    await client.query('select filestore.start_move($1, 7)', [mount.key]);
  } else {
    await client.query("update filestore.backend_mounts set state = 'inactive' where mount_key = $1", [
      mount.key,
    ]);
  }
}

/** Ends what {@link passMount} has begun. */
export async function endPassing(client: Client): Promise<void> {
  for (let mount = await readPassing(client); mount !== undefined; mount = await readPassing(client)) {
    if (mount.isMoving) await client.query('call filestore.cancel_move($1)', [mount.key]);
    await client.query("update filestore.backend_mounts set state = 'inactive' where mount_key = $1", [
      mount.key,
    ]);
    await client.query('call filestore.erase_mount($1)', [mount.key]);
  }
}

/** What a scan of the mount finds: some of its files, and new ones. */
export const listPassing = (random: Random): readonly object[] => [
  ...FILES.filter(() => random.chance(0.8)),
  { path: `new/${fileName(random)}`, size_bytes: 1 },
];

async function readPassing(client: Client) {
  const { rows } = await client.query<{ key: string; isMoving: boolean; isErasing: boolean }>(
    `select mount_key as key, held_by is not null as "isMoving", state = 'inactive' as "isErasing"
     from filestore.backend_mounts where mount_key like 'passing-%'`,
  );
  return rows[0];
}

async function createPassing(client: Client): Promise<Mount> {
  const { rows } = await client.query<Mount>(
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path)
     values ('passing-' || gen_random_uuid(), 'local', '/passing')
     returning id, mount_key as key, '0' as "rootId"`,
  );
  const mount = rows[0] as Mount;
  await client.query('select from filestore.sync_nodes($1, $2)', [mount.key, JSON.stringify(FILES)]);
  return mount;
}
