import { expect, inject, test } from 'vitest';
import { replaceInUrl } from '../../src/settings/database-url.ts';
import { createTestDatabase, type TestDatabaseOptions } from '../../src/testing/index.ts';
import { serviceDatabasesForEachTest } from '../support/databases/service-databases.ts';
import { asAdmin, asSuperuser, databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);
const create = serviceDatabasesForEachTest();

const refused = (options: TestDatabaseOptions) =>
  createTestDatabase(options).then(
    () => expect.fail('it was created'),
    (error) => error,
  );

test('a user without CREATEDB is refused with the statement that gives it', async () => {
  const role = await createRole();
  const error = await refused({ server: role.url });
  expect(error).toMatchObject({
    code: 'TEST_DATABASE_FAILED',
    message: expect.stringContaining(`alter role "${role.name}" createdb`),
  });
  expect(error.message).not.toContain(decodeURIComponent(new URL(role.url).password));
});

test('a user without CREATEROLE gets databases of level owner only', async () => {
  const role = await createRole();
  await asAdmin((admin) => admin.query(`alter role ${role.quotedName} createdb`));
  expect(await refused({ server: role.url })).toMatchObject({
    code: 'TEST_DATABASE_FAILED',
    message: expect.stringContaining(`alter role "${role.name}" createrole`),
  });
  const db = await create({ server: role.url, level: 'owner' });
  const { rows } = await db.pool.query('select session_user as role, count(*)::int from filestore.nodes');
  expect(rows).toEqual([{ role: role.name, count: 0 }]);
  await db.close();
  // The role cannot be dropped while it owns a template.
  const templates = await asAdmin((admin) =>
    admin.query('select datname from pg_database where pg_get_userbyid(datdba) = $1', [role.name]),
  );
  expect(templates.rows).toHaveLength(1);
  await asAdmin(async (admin) => {
    for (const { datname } of templates.rows) {
      await admin.query(`grant ${role.quotedName} to current_user`);
      await admin.query(`drop database ${datname}`);
    }
  });
});

test('a template that belongs to another user is not copied', async () => {
  const role = await createRole();
  await asAdmin((admin) => admin.query(`alter role ${role.quotedName} createdb`));
  const db = await create({ server: role.url, level: 'owner' });
  await db.close();
  await asSuperuser(async (superuser) => {
    const { rows } = await superuser.query(
      'select datname from pg_database where pg_get_userbyid(datdba) = $1',
      [role.name],
    );
    const template = rows[0].datname;
    await superuser.query(`alter database ${template} owner to current_user`);
    const error = await refused({ server: role.url, level: 'owner' });
    await superuser.query(`drop database ${template}`);
    expect(error).toMatchObject({
      code: 'TEST_DATABASE_FAILED',
      message: expect.stringMatching(`its template ${template} belongs to role .* Drop that database`),
    });
  });
});

test.each([
  ['no URL', 'db.example secret'],
  ['a URL of another database system', 'mysql://user:secret@db.example/secret'],
  ['a URL with an unknown parameter', 'postgres://user:secret@db.example/x?secret=1'],
])('%s is refused, and not quoted', async (_, server) => {
  const error = await refused({ server });
  expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'server' });
  expect(error.message).toContain('server');
  expect(error.message).not.toContain('secret');
});

test.each([7, {}, { url: 7 }, new URL('postgres://localhost/x')])('%s is no server', async (server) => {
  // As a program without types may give it.
  const error = await refused({ server: server as unknown as string });
  expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'server' });
});

test('an unknown level is refused with the known ones', async () => {
  const error = await refused({ server: inject('adminUrl'), level: 'admin' as 'owner' });
  expect(error).toMatchObject({
    code: 'SETTINGS_INVALID',
    setting: 'level',
    message: expect.stringContaining('reader, service, operator or owner'),
  });
});

test('a wrong password and a missing database are refused as in any connection', async () => {
  const { name, url } = await createRole();
  const wrong = [
    replaceInUrl('server', url, { database: database().name, user: name, password: 'wrong' }),
    replaceInUrl('server', url, { database: 'no_such_database' }),
  ];
  for (const server of wrong) expect(await refused({ server })).toMatchObject({ code: 'CONNECTION_FAILED' });
});
