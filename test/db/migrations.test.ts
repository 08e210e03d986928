import { describe, expect, test } from 'vitest';
import { type MigrationEvent, migrationStatus, runMigrations } from '../../src/index.ts';
import { connectionTo } from '../support/connection.ts';
import { databaseForEachTest } from '../support/database.ts';
import { committedMigrations, migrationNumber } from '../support/migrations.ts';
import { one } from '../support/tree.ts';

const database = databaseForEachTest('empty');
const env = () => ({ DATABASE_URL: database().url });

describe('runMigrations', () => {
  test('reports what it applied and what was there', async () => {
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

  test('tells what happens as it happens', async () => {
    const events: MigrationEvent[] = [];
    await runMigrations({ env: env(), onEvent: (event) => events.push(event) });
    expect(events.map(({ type }) => type)).toEqual([
      'plan',
      ...committedMigrations().flatMap(() => ['migration-start', 'migration-end']),
    ]);
  });

  test('records what graphile-migrate records', async () => {
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
    expect(
      await database().query(
        'select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
      ),
    ).toEqual([]);
  });

  test('takes a connection in place of the environment', async () => {
    await runMigrations({ connection: connectionTo(database().url), env: {} });
    expect(await one(database(), "select to_regclass('filestore.nodes') is not null as there")).toEqual({
      there: true,
    });
  });

  test('of four at once applies each migration once', async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 4 }, () => runMigrations({ env: env() })));
    const reports = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    const errors = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
    // Who comes second fails or finds nothing to do; it never applies anything again.
    expect(reports.reduce((sum, report) => sum + report.applied.length, 0)).toBe(
      committedMigrations().length,
    );
    for (const error of errors)
      expect(error).toMatchObject({ code: expect.stringMatching(/^(LOCK_NOT_ACQUIRED|MIGRATION_FAILED)$/) });
    expect(await one(database(), 'select count(*) from graphile_migrate.migrations')).toEqual({
      count: String(committedMigrations().length),
    });
  });

  test('without a URL says which variable to set', async () => {
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
    await database().query(`drop owned by ${reader}`);
    await database().query(`drop role ${reader}`);
  });
});
