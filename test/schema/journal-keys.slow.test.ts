import { expect, test } from 'vitest';
import { one } from '../support/nodes.ts';
import { rolesForFile } from '../support/roles.ts';
import { databaseForFile } from '../support/test-database.ts';

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
