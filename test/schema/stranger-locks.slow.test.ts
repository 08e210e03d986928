import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

const BEGIN = "select is_new from filestore.begin_command('move', idempotency_key => 'k')";
const BUSY = {
  code: 'FS409',
  constraint: 'journal_entries_key_busy',
  message: 'another session holds idempotency key "k" of command move',
};

test('a login without any right that locks an idempotency key delays a command for 10 s, and the refusal says why', async () => {
  const stranger = await (await createRole()).connect();
  await stranger.query(
    "select pg_advisory_lock(hashtext('filestore.command'), hashtext('move' || '/' || 'k'))",
  );
  const role = await createRole();
  await database().query("select filestore.grant_access($1, 'service')", [role.name]);
  const service = await role.connect();
  await expect(service.query(BEGIN)).rejects.toMatchObject(BUSY);
  expect(await one(service, 'show lock_timeout')).toEqual({ lock_timeout: '0' });

  await service.query("set lock_timeout = '50ms'");
  await expect(service.query(BEGIN)).rejects.toMatchObject(BUSY);
  expect(await one(service, 'show lock_timeout')).toEqual({ lock_timeout: '50ms' });

  await stranger.end();
  await service.query('set lock_timeout = 0');
  await service.query('begin');
  expect(await one(service, BEGIN)).toEqual({ is_new: true });
  expect(await one(service, 'show lock_timeout')).toEqual({ lock_timeout: '0' });
  await service.query('rollback');
}, 60_000);

test('a login without any right that locks the moves of a mount stops its writers, and the refusal says why', async () => {
  await database().query('call filestore.prepare_moves(true)');
  const mount = await createMount(database());
  const stranger = await (await createRole()).connect();
  await stranger.query("select pg_advisory_lock(hashtextextended('filestore.move', $1))", [mount.id]);
  await expect(createNode(database(), mount, mount.rootId, 'a')).rejects.toMatchObject({
    code: 'FS409',
    constraint: 'backend_mounts_moving',
    message: expect.stringMatching(/^another session holds the lock of mount ".*" for moves, though/),
  });
  await stranger.end();
  await expect(createNode(database(), mount, mount.rootId, 'a')).resolves.toBeDefined();
});
