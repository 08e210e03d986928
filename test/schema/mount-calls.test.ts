import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;

beforeAll(async () => {
  service = await connectAs('service');
});

const create = (mount: unknown) =>
  one(service, 'select * from filestore.create_mount($1)', [JSON.stringify(mount)]);
const update = (key: string, changes: unknown, version: number | null = null, client = service) =>
  one(client, 'select * from filestore.update_mount($1, $2, $3)', [key, JSON.stringify(changes), version]);
const newKey = async () => keyOf(service, (await createMount(service)).id);

describe('create_mount', () => {
  test('registers a mount with defaults for all that is left out, and the root of its tree', async () => {
    const mount = await create({
      mount_key: 'created',
      backend_kind: 's3',
      bucket: 'created',
      prefix: 'a/b',
      labels: { team: 'a' },
    });
    expect(mount).toMatchObject({
      mount_key: 'created',
      prefix: 'a/b',
      labels: { team: 'a' },
      config: {},
      access_mode: 'rw',
      state: 'active',
      version: 1,
    });
    const root = await one(service, 'select path from filestore.nodes where root_of_mount_id = $1', [
      mount.id,
    ]);
    expect(root).toEqual({ path: '' });
  });

  test('refuses a taken key or place, a missing field, and a value that is not valid', async () => {
    const place = { backend_kind: 'local', root_path: '/taken' };
    const missing = {
      ...refusal('FS422', 'null value in column'),
      constraint: 'backend_mounts_settings_check',
    };
    await create({ mount_key: 'taken', ...place });
    for (const [mount, error] of [
      [
        { mount_key: 'taken', backend_kind: 's3', bucket: 'free' },
        { constraint: 'backend_mounts_mount_key_key' },
      ],
      [{ mount_key: 'free', ...place }, { constraint: 'backend_mounts_place_excl' }],
      [place, missing],
      [{ mount_key: 'half' }, missing],
      [{}, missing],
      [{ mount_key: 'free', backend_kind: 'ftp' }, { constraint: 'backend_mounts_backend_kind_check' }],
      [
        { mount_key: 'free', ...place, config: { password: 'x1' } },
        { constraint: 'backend_mounts_secret_check' },
      ],
    ] as const) {
      await expect(create(mount), JSON.stringify(mount)).rejects.toMatchObject(error);
    }
  });
});

describe('update_mount', () => {
  test('changes the given settings and the state, keeps the others, and clears what is null', async () => {
    const key = await newKey();
    await update(key, { display_name: 'A', labels: { team: 'a' }, state_reason: 'new' });
    expect(await update(key, { state: 'offline', state_reason: null, labels: {} }, 2)).toMatchObject({
      mount_key: key,
      display_name: 'A',
      state: 'offline',
      state_reason: null,
      labels: {},
      version: 3,
    });
  });

  test('refuses another version than expected, also for no change', async () => {
    const key = await newKey();
    expect(await update(key, {}, 1)).toMatchObject({ version: 1 });
    for (const changes of [{ state: 'offline' }, {}]) {
      await expect(update(key, changes, 7)).rejects.toMatchObject({
        ...refusal('FS409', `mount "${key}" is not at version 7`),
        constraint: 'backend_mounts_stale',
      });
    }
  });

  test('refuses an unknown mount', async () => {
    await expect(update('nowhere', { state: 'offline' })).rejects.toMatchObject(
      refusal('FS404', '"nowhere"'),
    );
  });

  test.each([
    [{ id: 1 }, '"id", which is fixed or set by the database'],
    [{ backend_kind: 's3' }, '"backend_kind", which is fixed or set by the database'],
    [{ version: 1 }, '"version", which is fixed or set by the database'],
    [{ held_by: 1 }, '"held_by", which is fixed or set by the database'],
    [{ colour: 'red' }, '"colour", which a mount does not have'],
    [['state'], 'are of type array, not an object'],
    ['state', 'are of type string, not an object'],
    [{ labels: null }, 'null value in column "labels"'],
  ])('refuses the settings %j', async (changes, problem) => {
    await expect(update(await newKey(), changes)).rejects.toMatchObject({
      ...refusal('FS422', problem),
      constraint: 'backend_mounts_settings_check',
    });
  });
});

test('list_mounts pages through the mounts in order of key', async () => {
  for (let n = 0; n < 3; n += 1) await newKey();
  const all = (
    await database().query('select mount_key from filestore.backend_mounts order by mount_key')
  ).map(({ mount_key }) => mount_key);
  const page = async (after: string, size: number): Promise<string[]> =>
    (await service.query('select mount_key from filestore.list_mounts($1, $2)', [after, size])).rows.map(
      ({ mount_key }) => mount_key,
    );
  const seen: string[] = [];
  for (let rows = await page('', 2); rows.length > 0; rows = await page(seen.at(-1) ?? '', 2))
    seen.push(...rows);
  expect(seen).toEqual(all);
  await expect(page('', 0)).rejects.toMatchObject({ constraint: 'limit_check' });
});

test('mount_by_key and mount_by_id return the same mount, and no row for an unknown one', async () => {
  const key = await newKey();
  const mount = await one(service, 'select * from filestore.mount_by_key($1)', [key]);
  expect(await one(service, 'select * from filestore.mount_by_id($1)', [mount.id])).toEqual(mount);
  expect((await service.query("select from filestore.mount_by_key('nowhere')")).rows).toEqual([]);
  expect((await service.query('select from filestore.mount_by_id(999999)')).rows).toEqual([]);
});

describe('a mount by its id', () => {
  test('is taken wherever its key is', async () => {
    const { mount_key: key, id } = await create({
      mount_key: 'by-id',
      backend_kind: 'local',
      root_path: '/by-id',
    });
    const file = await one(service, "select id from filestore.upsert_file($1, 'a/f')", [`#${id}`]);
    for (const mount of [key, `#${id}`]) {
      expect(await one(service, "select id from filestore.node_by_path($1, 'a/f')", [mount])).toEqual(file);
    }
    expect(await update(`#${id}`, { contact: 'ada' }, 1)).toMatchObject({ mount_key: key, contact: 'ada' });
    // Without the sign, it is a key.
    await expect(service.query('select filestore.writable_mount($1)', [id])).rejects.toMatchObject({
      constraint: 'backend_mounts_missing',
    });
    const { rows } = await service.query(
      `select p.oid::regprocedure::text as name, p.prosrc as body from pg_proc p
       join filestore.access_rights('operator') r on r.object = p.oid::regprocedure::text
       where 'mount_key' = any (p.proargnames) and p.proname not in ('find_mount', 'mount_by_key', 'refuse_range')`,
    );
    expect(rows.length).toBeGreaterThan(10);
    // upsert_directory calls functions that do.
    for (const { name, body } of rows)
      expect(body, name).toMatch(/filestore\.(find_mount|ensure_directory)\(/);
  });

  test.each(['#999999', '#', '#1x', '#-1', '#0x1', '# 1', `#${'9'.repeat(30)}`])(
    'that is %s is refused',
    async (mount) => {
      await expect(service.query('select filestore.writable_mount($1)', [mount])).rejects.toMatchObject({
        ...refusal('FS404', `"${mount}"`),
        constraint: 'backend_mounts_missing',
      });
    },
  );
});
