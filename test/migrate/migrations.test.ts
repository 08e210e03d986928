import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { assertMigrated, type MigrationEvent, migrationStatus, runMigrations } from '../../src/index.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest('empty');
const env = () => ({ DATABASE_URL: database().url });

describe('runMigrations', () => {
  test('reports applied and earlier migrations', async () => {
    const first = await runMigrations({ env: env() });
    expect(first).toMatchObject({
      applied: committedMigrations().map((filename) => ({
        filename,
        message: expect.any(String),
        hash: expect.stringMatching(/^sha1:/),
      })),
      alreadyApplied: 0,
      database: database().name,
      serverVersion: expect.stringMatching(/^\d+/),
    });
    expect(first.applied.every(({ durationMs }) => durationMs > 0)).toBe(true);
    expect(await runMigrations({ env: env() })).toMatchObject({
      applied: [],
      alreadyApplied: committedMigrations().length,
    });
  });

  test('reports events as they happen', async () => {
    const events: MigrationEvent[] = [];
    await runMigrations({ env: env(), onEvent: (event) => events.push(event) });
    // A migration that takes a second or more reports its progress.
    const types = events.map(({ type }) => type).filter((type) => !['progress', 'span'].includes(type));
    expect(types).toEqual([
      'plan',
      ...committedMigrations().flatMap(() => ['migration-start', 'migration-end']),
    ]);
  });

  test('records the same rows as graphile-migrate', async () => {
    const { applied } = await runMigrations({ env: env() });
    const rows = await database().query(
      'select filename, hash from graphile_migrate.migrations order by filename',
    );
    expect(rows).toEqual(
      applied.map(({ filename, hash }) => ({ filename: `${migrationNumber(filename)}.sql`, hash })),
    );
  });

  test('leaves no connection behind', async () => {
    await runMigrations({ env: env() });
    // A server process may end a moment after its client has closed the connection.
    await until(async () => {
      const left = await database().query(
        'select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      );
      return left.length === 0;
    });
  });

  test('uses the given connection instead of the environment', async () => {
    await runMigrations({ connection: connectionTo(database().url), env: {} });
    expect(await one(database(), "select to_regclass('filestore.nodes') is not null as there")).toEqual({
      there: true,
    });
  });

  test('without a URL names the variable to set', async () => {
    await expect(runMigrations({ env: {} })).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      setting: 'FILESTORE_DATABASE_URL',
    });
  });
});

describe('migrationStatus', () => {
  test('follows a database from empty to current', async () => {
    expect(await migrationStatus({ env: env() })).toMatchObject({
      state: 'empty',
      applied: [],
      pending: committedMigrations(),
    });
    await runMigrations({ env: env() });
    expect(await migrationStatus({ env: env() })).toMatchObject({
      state: 'current',
      pending: [],
      problems: [],
    });
    const last = committedMigrations().slice(-1);
    await database().query('delete from graphile_migrate.migrations where filename = any ($1)', [
      last.map((filename) => `${migrationNumber(filename)}.sql`),
    ]);
    expect(await migrationStatus({ env: env() })).toMatchObject({
      state: 'pending',
      pending: last,
    });
    await database().query(
      "update graphile_migrate.migrations set hash = 'sha1:00' where filename = (select max(filename) from graphile_migrate.migrations)",
    );
    expect(await migrationStatus({ env: env() })).toMatchObject({
      state: 'diverged',
      problems: [expect.any(String)],
    });
  });

  test('works for a role that may only read', async () => {
    await runMigrations({ env: env() });
    const reader = `${database().name}_reader`;
    await database().query(`create role ${reader} login password 'reader'`);
    await database().query(`grant usage on schema graphile_migrate to ${reader}`);
    await database().query(`grant select on graphile_migrate.migrations to ${reader}`);
    const url = new URL(database().url);
    url.username = reader;
    url.password = 'reader';
    expect(await migrationStatus({ env: { DATABASE_URL: url.href } })).toMatchObject({ state: 'current' });
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${reader}; drop role ${reader}`);
  });
});

describe('assertMigrated', () => {
  test('names the command that applies pending migrations, and passes afterwards', async () => {
    const refusal = await assertMigrated({ env: env() }).catch((error) => error);
    expect(refusal).toMatchObject({ code: 'NOT_MIGRATED', pending: committedMigrations() });
    expect(refusal.message).toContain(`Database "${database().name}"`);
    const [first, last] = [committedMigrations()[0], committedMigrations().at(-1)];
    expect(refusal.message).toContain(
      `lacks ${committedMigrations().length} migrations (${first} to ${last}).`,
    );

    const [, script = ''] = /npm run (\S+)$/.exec(refusal.message) ?? [];
    const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
    expect(manifest.scripts[script]).toMatch(/ dev\/cli\.ts migrate$/);

    await runMigrations({ env: env() });
    expect(await assertMigrated({ env: env() })).toBeUndefined();
  });

  test('changes nothing in a database that it refuses', async () => {
    await expect(assertMigrated({ env: env() })).rejects.toMatchObject({ code: 'NOT_MIGRATED' });
    expect(await one(database(), "select to_regnamespace('graphile_migrate') as schema")).toEqual({
      schema: null,
    });
  });
});
