import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);
let service: Client;

beforeAll(async () => {
  service = await connectAs('service');
  await service.query(
    `insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('media', 's3', 'media')`,
  );
});

const writable = (key: string) => one(service, 'select mount_key from filestore.writable_mount($1)', [key]);

test.each(['active', 'degraded', 'unknown'])('a mount that is %s is writable', async (state) => {
  await service.query('update filestore.backend_mounts set state = $1', [state]);
  expect(await writable('media')).toEqual({ mount_key: 'media' });
});

test('a mount that does not exist is refused', async () => {
  await expect(writable('nowhere')).rejects.toMatchObject({
    code: 'FS404',
    constraint: 'backend_mounts_missing',
  });
});

test('a mount that does not exist is refused also when there is none, by a plan that is used again', async () => {
  const client = await database().connect();
  await client.query('begin');
  await client.query('set local plan_cache_mode = force_generic_plan');
  await client.query("update filestore.backend_mounts set state = 'inactive'");
  await client.query("select filestore.delete_mount('media')");
  await client.query('set local enable_indexscan = off; set local enable_bitmapscan = off');
  await expect(client.query("select filestore.writable_mount('media')")).rejects.toMatchObject({
    constraint: 'backend_mounts_missing',
  });
  await client.query('rollback');
});

test('a read-only mount is refused', async () => {
  await service.query("update filestore.backend_mounts set state = 'active', access_mode = 'ro'");
  await expect(writable('media')).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'backend_mounts_read_only',
    message: 'mount "media" is read-only',
  });
});

test.each(['inactive', 'offline', 'error'])(
  'a mount that is %s is refused with its reason',
  async (state) => {
    await service.query(
      "update filestore.backend_mounts set access_mode = 'rw', state = $1, state_reason = E'the disk\\nis gone'",
      [state],
    );
    await expect(writable('media')).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'backend_mounts_inactive',
      message: `mount "media" is ${state}: the disk is gone`,
    });
  },
);

test('a mount that is being erased is refused', async () => {
  await database().query("update filestore.backend_mounts set access_mode = 'rw', state = 'active'");
  await database().query('update filestore.backend_mounts set erasing_since = now()');
  await expect(writable('media')).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'backend_mounts_erasing',
  });
});
