import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { migrationStatus, runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { databaseForFile, type TestDatabase } from '../support/databases/test-database.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';
import { type LoginRole, rolesForFile } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);
const envOf = (role: LoginRole) => ({ DATABASE_URL: role.url });

async function schemasIn(sql: TestDatabase): Promise<readonly string[]> {
  const rows = await sql.query<{ nspname: string }>(
    "select nspname from pg_namespace where nspname in ('filestore', 'graphile_migrate') order by nspname",
  );
  return rows.map(({ nspname }) => nspname);
}

describe('the role that migrates', () => {
  let migrator: LoginRole;
  beforeEach(async () => {
    migrator = await createRole();
  });
  afterEach(async () => {
    const superuser = await database().connectAsSuperuser();
    await superuser.query('drop schema if exists filestore, graphile_migrate cascade');
    await superuser.end();
  });

  const grant = (role: LoginRole) =>
    database().query(`grant create on database ${database().name} to ${role.quotedName}`);
  const revoke = (role: LoginRole) =>
    database().query(`revoke create on database ${database().name} from ${role.quotedName}`);

  test('needs the CREATE right on the database for the first run, and changes nothing without it', async () => {
    await expect(runMigrations({ env: envOf(migrator) })).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      sqlState: '42501',
      message: expect.stringContaining('grant create on database'),
      applied: [],
    });
    expect(await schemasIn(database())).toEqual([]);
    await grant(migrator);
    expect(await runMigrations({ env: envOf(migrator) })).toMatchObject({
      applied: { length: committedMigrations().length },
      schema: { state: 'same' },
    });
    await revoke(migrator);
  });

  test('runs nothing of a role that made its bookkeeping before the first run', async () => {
    await grant(migrator);
    const stranger = await createRole();
    await grant(stranger);
    const session = await stranger.connect();
    await session.query(`
      create schema graphile_migrate;
      create table graphile_migrate.migrations (
        hash text primary key, previous_hash text, filename text not null, date timestamptz not null default now()
      );
      create table graphile_migrate.ran_as (role text);
      create function graphile_migrate.trap() returns trigger language plpgsql as $$
        begin insert into graphile_migrate.ran_as values (current_user); return new; end $$;
      create trigger trap before insert on graphile_migrate.migrations
        for each row execute function graphile_migrate.trap();
      grant all on schema graphile_migrate to public;
      grant all on all tables in schema graphile_migrate to public`);
    const superuser = { DATABASE_URL: database().superuserUrl };
    for (const env of [envOf(migrator), superuser]) {
      await expect(runMigrations({ env })).rejects.toMatchObject({
        code: 'OWNER_NOT_TRUSTED',
        message: expect.stringContaining(`schema graphile_migrate belongs to role "${stranger.name}"`),
      });
    }
    const { rows } = await session.query('select role from graphile_migrate.ran_as');
    expect(rows).toEqual([]);
    expect(await schemasIn(database())).toEqual(['graphile_migrate']);
    await revoke(stranger);
    await revoke(migrator);
  });

  test('whose default privileges were taken away gets the statement that restores them', async () => {
    await grant(migrator);
    const session = await migrator.connect();
    await session.query(
      `alter default privileges for role ${migrator.quotedName} revoke all on functions from ${migrator.quotedName}`,
    );
    const refusal = await runMigrations({ env: envOf(migrator) }).catch((error: unknown) => error);
    expect(refusal).toMatchObject({
      code: 'MIGRATION_FAILED',
      sqlState: '42501',
      message: expect.not.stringContaining('grant create on database'),
    });
    const [, restore] = /Restore them: (alter default privileges [^.]*)\./.exec(String(refusal)) ?? [];
    await session.query(restore ?? '');
    expect(await runMigrations({ env: envOf(migrator) })).toMatchObject({ schema: { state: 'same' } });
    await revoke(migrator);
  });
});

describe('after another role has migrated,', () => {
  const database = databaseForFile('empty');
  const createRole = rolesForFile(database);
  let owner: LoginRole;
  let later: PackageCopy;
  beforeAll(async () => {
    owner = await createRole();
    await database().query(`grant create on database ${database().name} to ${owner.quotedName}`);
    await runMigrations({ env: envOf(owner) });
    await database().query(`revoke create on database ${database().name} from ${owner.quotedName}`);
  });
  const asOwner = (statement: string) => withClient(owner.url, (client) => client.query(statement));
  beforeEach(() => {
    later = copyPackage();
    later.addMigration('later', "comment on schema filestore is 'Of a later version.';");
  });
  afterEach(async () => {
    later.remove();
    const last = `${migrationNumber(committedMigrations().at(-1) ?? '')}.sql`;
    await asOwner(`delete from graphile_migrate.migrations where filename > '${last}'`);
  });

  test('a superuser continues what that role began', async () => {
    const { exitCode } = await runCli(['migrate'], {
      folder: later.folder,
      env: { DATABASE_URL: database().superuserUrl },
    });
    expect(exitCode).toBe(0);
  });

  test('that role needs only ownership of the schemas for later runs, with and without pending migrations', async () => {
    expect(await runMigrations({ env: envOf(owner) })).toMatchObject({ applied: [] });
    const { exitCode, stdout } = await runCli(['migrate'], { folder: later.folder, env: envOf(owner) });
    expect(stdout).toContain('Done: applied 1 migration');
    // The copy's model belongs to the migration before.
    expect(exitCode).toBe(0);
    expect(await one(database(), "select obj_description('filestore'::regnamespace) as comment")).toEqual({
      comment: 'Of a later version.',
    });
  });

  test('a member of that role continues, and roles keep their rights', async () => {
    const successor = await createRole('_successor');
    await database().query(`grant ${owner.quotedName} to ${successor.quotedName}`);
    const reader = await createRole('_reader');
    await asOwner(`select filestore.grant_access('${reader.name}', 'reader')`);
    later.addMigration('owned', 'create table filestore.owned_by_the_successor ();');
    expect(await runCli(['migrate'], { folder: later.folder, env: envOf(successor) })).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining('Done: applied 2 migrations'),
    });
    const client = await reader.connect();
    await expect(client.query('select from filestore.owned_by_the_successor')).resolves.toBeDefined();
  });
});

describe('in a migrated database', () => {
  const migrated = databaseForFile();
  const createStranger = rolesForFile(migrated);

  test('a role that is not the owner is refused, with the reason', async () => {
    const stranger = await createStranger();
    await migrated().query(`grant usage on schema graphile_migrate to ${stranger.quotedName}`);
    await migrated().query(`grant select on graphile_migrate.migrations to ${stranger.quotedName}`);
    await forgetLast(migrated());
    expect(await migrationStatus({ env: envOf(stranger) })).toMatchObject({ state: 'pending' });
    const { exitCode, stderr } = await runCli(['migrate'], { env: envOf(stranger) });
    expect(exitCode).toBe(1);
    expect(stderr).toMatch(/MIGRATION_FAILED: .*42501.*owner of the schemas filestore and graphile_migrate/);
    expect(await migrationStatus({ env: envOf(stranger) })).toMatchObject({ state: 'pending' });
  });
});
