import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { assertMigrated, type MigrationEvent, migrationStatus, runMigrations } from '../../src/index.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { createDatabase, databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';
import { one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

describe('runMigrations', () => {
  const database = databaseForEachTest('empty');

  test('reports applied and earlier migrations, and records the same rows as graphile-migrate', async () => {
    const env = { DATABASE_URL: database().url };
    const events: MigrationEvent[] = [];
    const onEvent = (event: MigrationEvent) => events.push(event);
    const first = await runMigrations({ connection: connectionTo(database().url), env: {}, onEvent });
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
    // A migration that takes a second or more reports its progress.
    const types = events.map(({ type }) => type).filter((type) => !['progress', 'span'].includes(type));
    expect(types).toEqual([
      'plan',
      ...committedMigrations().flatMap(() => ['migration-start', 'migration-end']),
    ]);
    expect(
      await database().query('select filename, hash from graphile_migrate.migrations order by filename'),
    ).toEqual(
      first.applied.map(({ filename, hash }) => ({ filename: `${migrationNumber(filename)}.sql`, hash })),
    );
    // A server process may end a moment after its client has closed the connection.
    await until(async () => {
      const left = await database().query(
        'select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      );
      return left.length === 0;
    });
    expect(await runMigrations({ env })).toMatchObject({
      applied: [],
      alreadyApplied: committedMigrations().length,
    });
  });

  test('without a URL names the variable to set', async () => {
    await expect(runMigrations({ env: {} })).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      setting: 'FILESTORE_DATABASE_URL',
    });
  });
});

const database = databaseForEachTest();
const env = () => ({ DATABASE_URL: database().url });

describe('migrationStatus', () => {
  test('follows a database to another history', async () => {
    expect(await migrationStatus({ env: env() })).toMatchObject({
      state: 'current',
      pending: [],
      problems: [],
    });
    await forgetLast(database());
    expect(await migrationStatus({ env: env() })).toMatchObject({
      state: 'pending',
      pending: committedMigrations().slice(-1),
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

test('an empty database lacks all migrations: services are told the command that applies them, and nothing is changed', async () => {
  const empty = await createDatabase('empty');
  try {
    const env = { DATABASE_URL: empty.url };
    expect(await migrationStatus({ env })).toMatchObject({
      state: 'empty',
      applied: [],
      pending: committedMigrations(),
    });
    const refusal = await assertMigrated({ env }).catch((error) => error);
    expect(refusal).toMatchObject({ code: 'NOT_MIGRATED', pending: committedMigrations() });
    expect(refusal.message).toContain(`Database "${empty.name}"`);
    const [first, last] = [committedMigrations()[0], committedMigrations().at(-1)];
    expect(refusal.message).toContain(
      `lacks ${committedMigrations().length} migrations (${first} to ${last}).`,
    );
    const [, script = ''] = /npm run (\S+)$/.exec(refusal.message) ?? [];
    const manifest = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
    expect(manifest.scripts[script]).toMatch(/ dev\/cli\.ts migrate$/);
    expect(await one(empty, "select to_regnamespace('graphile_migrate') as schema")).toEqual({
      schema: null,
    });
  } finally {
    await empty.drop();
  }
  expect(await assertMigrated({ env: env() })).toBeUndefined();
});
