import { afterEach, describe, expect, inject, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, runCli } from '../support/command-line/command-line.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { asAdmin, databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { one } from '../support/rows/nodes.ts';

const SECRET = 'hunter2-sesame';
const database = databaseForEachTest('empty');

/** Short waits: the faults in these tests do not go away. */
const IMPATIENT = { FILESTORE_MIGRATION_CONNECT_WAIT_MS: '0', FILESTORE_MIGRATION_LOCK_WAIT_MS: '0' };
const migrate = (env: Record<string, string>) => runCli(['migrate'], { env: { ...IMPATIENT, ...env } });

/** Expects the exit code, a message with all these parts, no stack trace and no secret. */
function expectFailure(result: CliResult, exitCode: number, ...parts: readonly (string | RegExp)[]): void {
  expect(result).toMatchObject({ exitCode });
  for (const part of parts) expect(result.stderr).toMatch(part);
  expect(result.output).not.toMatch(/^\s+at /m);
  expect(result.output).not.toContain(SECRET);
}

/** The same URL with other credentials. */
function urlAs(user: string, password: string): string {
  const url = new URL(database().url);
  url.username = user;
  url.password = password;
  return url.href;
}

async function expectUntouched(): Promise<void> {
  const schemas = await database().query(
    "select nspname from pg_namespace where nspname in ('filestore', 'graphile_migrate')",
  );
  expect(schemas).toEqual([]);
}

describe('a server', () => {
  test('that is not running', async () => {
    const result = await migrate({ DATABASE_URL: `postgres://app:${SECRET}@127.0.0.1:1/app` });
    expectFailure(result, 1, /Cannot connect to database "app" on 127\.0\.0\.1:1/, /no server listens there/);
  });

  test('whose host name is unknown', async () => {
    const result = await migrate({ DATABASE_URL: `postgres://app:${SECRET}@db.invalid/app` });
    expectFailure(result, 1, /db\.invalid:5432/);
  });

  test('that refuses the password', async ({ skip }) => {
    await asAdmin((admin) => admin.query(`create role ${database().name}_app login password 'another'`));
    try {
      const result = await migrate({ DATABASE_URL: urlAs(`${database().name}_app`, SECRET) });
      skip(result.exitCode === 1 && result.output.includes('42501'), 'this server asks for no password');
      expectFailure(result, 1, /password for user ".*_app" is wrong/);
    } finally {
      await asAdmin((admin) => admin.query(`drop role ${database().name}_app`));
    }
  });

  test('that does not have the database', async () => {
    const result = await migrate({ DATABASE_URL: databaseUrl(inject('adminUrl'), 'no_such_database') });
    expectFailure(result, 1, /"no_such_database"/, /Create it/);
  });

  test('on which the user lacks the CREATE right: nothing is applied', async () => {
    const role = `${database().name}_app`;
    await asAdmin((admin) => admin.query(`create role ${role} login password '${SECRET}'`));
    try {
      const result = await migrate({ DATABASE_URL: urlAs(role, SECRET) });
      expectFailure(result, 1, /permission denied for database/, /42501/, /grant create on database/);
      await expectUntouched();
    } finally {
      await asAdmin((admin) => admin.query(`drop role ${role}`));
    }
  });
});

describe('the migrations of the package', () => {
  const migrated = databaseForEachTest();
  let copy: PackageCopy | undefined;
  afterEach(() => copy?.remove());

  const migrateCopy = (from: PackageCopy) =>
    runCli(['migrate'], { folder: from.folder, env: { ...IMPATIENT, DATABASE_URL: migrated().url } });

  test('stop at the one that fails, roll it back, and report where it failed', async () => {
    const broken = copyPackage();
    copy = broken;
    const filename = broken.addMigration(
      'broken',
      "create table filestore.half_done ();\n\nselect 'é';\n-- the next line is line 8 of the file\nselect  nothing from filestore.nodes;",
    );
    await forgetLast(migrated());
    const result = await migrateCopy(broken);
    expectFailure(
      result,
      1,
      `${filename} failed at statement 3 (line 8, column 9)`,
      /column "nothing" does not exist/,
      /42703/,
      /rolled back/,
      `Applied before it: ${committedMigrations().at(-1)}`,
    );
    expect(await one(migrated(), "select to_regclass('filestore.half_done') as half")).toEqual({
      half: null,
    });
    expect(await one(migrated(), 'select count(*) from graphile_migrate.migrations')).toEqual({
      count: String(committedMigrations().length),
    });
  });

  test('report which statement failed when the server gives no position', async () => {
    const broken = copyPackage();
    copy = broken;
    broken.addMigration(
      'broken',
      "select 1;\ninsert into filestore.backend_mounts (mount_key, backend_kind) values ('x', 'local');",
    );
    expectFailure(await migrateCopy(broken), 1, /at statement 2: .*backend_mounts_place_check/, /23514/);
  });

  test('are applied by one migrator at a time: a second one gives up and names the first', async () => {
    const client = await database().connect();
    await client.query('select pg_advisory_lock(4727445306447283)');
    expectFailure(
      await migrate({ DATABASE_URL: database().url }),
      5,
      /another migrator is running on.*server process \d+, role/,
    );
  });
});
