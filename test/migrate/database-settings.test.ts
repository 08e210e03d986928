import { describe, expect, test } from 'vitest';
import { copyPackage } from '../../harness/package-copy.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { migrationStatus, pendingMigrations, runMigrations, verifySchema } from '../../src/index.ts';
import { RUN_SETTINGS } from '../../src/settings/server-settings.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { HOSTILE_SCHEMA, OTHER_VALUES, setOnDatabase } from '../support/databases/database-settings.ts';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const plain = databaseForFile();
const database = databaseForEachTest('empty');
const createRole = rolesForEachTest(database);
const env = () => ({ DATABASE_URL: database().url });
/** A role that may set every value. */
const superuserEnv = () => ({ DATABASE_URL: database().superuserUrl });

/** Migrates, and expects of every command the answers that it has on a database without settings. */
async function expectUsualSchema(of = env(), check: object = { state: 'same' }): Promise<void> {
  expect(await migrationStatus({ env: of })).toMatchObject({ state: 'empty', applied: [] });
  expect(await pendingMigrations({ env: of })).not.toEqual([]);
  expect(await runMigrations({ env: of })).toMatchObject({ schema: { state: 'same' } });
  expect(await migrationStatus({ env: of })).toMatchObject({ state: 'current' });
  expect(await verifySchema({ env: of })).toMatchObject(check);
  expect(await readCatalog(await database().connect())).toEqual(await readCatalog(await plain().connect()));
}

test('a database with another value for every setting gets the same schema', async () => {
  await setOnDatabase(database(), OTHER_VALUES);
  // The schema is the same, but one of these values keeps the triggers from firing in other sessions.
  const differences = [expect.stringContaining('session_replication_role is "replica"')];
  await expectUsualSchema(superuserEnv(), { state: 'drifted', differences });
  const methods = `select distinct am.amname from pg_catalog.pg_class c join pg_catalog.pg_am am on am.oid = c.relam
    where c.relnamespace = 'filestore'::pg_catalog.regnamespace and c.relkind = 'r'`;
  expect(await database().query(methods)).toEqual([{ amname: 'heap' }]);
});

describe('settings of a migrated database', () => {
  const database = databaseForEachTest();
  const superuserEnv = () => ({ DATABASE_URL: database().superuserUrl });

  test('a migration runs under the settings of this package, whatever the database sets', async () => {
    await setOnDatabase(database(), OTHER_VALUES);
    const copy = copyPackage();
    copy.addMigration(
      'settings',
      "load 'plpgsql'; create table filestore.seen as select name, setting from pg_settings;",
    );
    try {
      await runCli(['migrate'], { folder: copy.folder, env: superuserEnv() });
    } finally {
      copy.remove();
    }
    const { rows } = await (await database().connectAsSuperuser()).query<{ name: string; setting: string }>(
      'select name, setting from filestore.seen',
    );
    const seen = Object.fromEntries(rows.map(({ name, setting }) => [name, setting]));
    // Those of TCP do nothing on a Unix socket, the lock timeout is that of the attempt, and others do not exist here.
    const known = Object.entries(RUN_SETTINGS).filter(
      ([name]) => name in seen && !/^(tcp_|lock_timeout$)/.test(name),
    );
    expect(seen).toMatchObject(Object.fromEntries(known));
  });

  test('a check of a migration is evaluated under them too, also in a dry run', async () => {
    await setOnDatabase(database(), OTHER_VALUES);
    const copy = copyPackage();
    copy.addMigration(
      'checked',
      `--check: The settings are those of the database.
--  select current_setting('search_path') = '' and '7' ~ '^\\d$'

  select 1;`,
    );
    try {
      for (const args of [['--dry-run'], []]) {
        const result = await runCli(['migrate', ...args], { folder: copy.folder, env: superuserEnv() });
        expect(result).toMatchObject({ exitCode: 0 });
      }
    } finally {
      copy.remove();
    }
  });
});

describe('the search path of a database', () => {
  test('with objects before those of pg_catalog does not reach the schema or the answers', async () => {
    await database().query(HOSTILE_SCHEMA);
    await setOnDatabase(database(), { search_path: 'before, pg_catalog' });
    await expectUsualSchema();
  });

  test('of a role is as harmless', async () => {
    await database().query(HOSTILE_SCHEMA);
    const role = await createRole();
    await database().query(`grant create on database ${database().name} to ${role.quotedName}`);
    await database().query(`grant usage on schema before to ${role.quotedName}`);
    await database().query(`alter role ${role.quotedName} set search_path = before, pg_catalog`);
    const connection = { env: { DATABASE_URL: role.url } };
    expect(await runMigrations(connection)).toMatchObject({ schema: { state: 'same' } });
    expect(await verifySchema(connection)).toMatchObject({ state: 'same' });
  });
});

test('a role whose triggers do not fire is refused if it may not change that', async () => {
  const role = await createRole();
  await database().query(`grant create on database ${database().name} to ${role.quotedName}`);
  await setOnDatabase(database(), { session_replication_role: 'replica' });
  const connection = { env: { DATABASE_URL: role.url } };
  await expect(runMigrations(connection)).rejects.toMatchObject({
    code: 'TRIGGERS_DISABLED',
    message: expect.stringMatching(/"replica".*Nothing was changed.*reset session_replication_role/),
  });
  expect(await one(database(), "select pg_catalog.to_regnamespace('filestore') as schema")).toEqual({
    schema: null,
  });
  expect(await migrationStatus(connection)).toMatchObject({ state: 'empty' });
  const superuser = await database().connectAsSuperuser();
  await superuser.query(`grant set on parameter session_replication_role to ${role.quotedName}`);
  expect(await runMigrations(connection)).toMatchObject({ schema: { state: 'same' } });
});
