import { describe, expect, test } from 'vitest';
import { type MigrationSpan, type RunMigrationsOptions, runMigrations } from '../../src/index.ts';
import { MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const database = databaseForEachTest();
const empty = databaseForFile('empty');
const files = committedMigrations();

/** The spans of a run, and the code of the error that it was rejected with. */
async function spansOf(options: RunMigrationsOptions = {}) {
  const spans: MigrationSpan[] = [];
  const code = await runMigrations({
    env: { DATABASE_URL: database().url },
    ...options,
    onEvent(event) {
      if (event.type === 'span') spans.push(event);
      options.onEvent?.(event);
    },
  }).then(
    () => undefined,
    (error) => error.code,
  );
  return { spans, code };
}

/** Milliseconds since 1970 leave a double less than a microsecond. */
const ROUNDING_MS = 0.01;

const failed = (code: string, sqlState: string | null = null) => ({ error: { code, sqlState } });
const named = (spans: readonly MigrationSpan[], name: MigrationSpan['name']) =>
  spans.filter((span) => span.name === name);

/** Lets the first migration run again, and wait for a table that the returned connection holds. */
async function blockFirstMigration() {
  await database().query('truncate graphile_migrate.migrations');
  const holder = await database().connect();
  // Readers get by; a trigger cannot be made.
  await holder.query('begin; lock table filestore.backend_mounts, filestore.nodes in row exclusive mode');
  return holder;
}

describe('the spans of a run', () => {
  test('are its parts in the order in which they ended, one after the other, and then the run, which is now', async () => {
    const before = Date.now();
    const { spans } = await spansOf({ env: { DATABASE_URL: empty().url } });
    const after = Date.now();
    const where = { attempt: 1, database: empty().name, error: null };
    const serverVersion = expect.stringMatching(/^\d+/);
    const part = (name: string, filename: string | null = null) => ({
      type: 'span',
      name,
      filename,
      startedAtMs: expect.any(Number),
      durationMs: expect.any(Number),
      ...where,
      serverVersion,
    });
    expect(spans).toEqual([
      { ...part('connect'), serverVersion: null },
      part('survey'),
      part('lock'),
      part('checks'),
      ...files.map((filename) => part('migration', filename)),
      part('verify'),
      part('run'),
    ]);
    const ends = spans.map(({ startedAtMs, durationMs }) => startedAtMs + durationMs);
    const run = spans.at(-1) ?? expect.fail('there is no span');
    expect(run.startedAtMs).toBeGreaterThanOrEqual(before);
    expect(Math.floor(ends.at(-1) ?? 0)).toBeLessThanOrEqual(after + 1);
    for (const [index, { startedAtMs, durationMs }] of spans.slice(0, -1).entries()) {
      expect(durationMs).toBeGreaterThan(0);
      expect(startedAtMs).toBeGreaterThanOrEqual(
        index === 0 ? run.startedAtMs : (ends[index - 1] ?? 0) - ROUNDING_MS,
      );
      expect(ends[index]).toBeLessThanOrEqual((ends.at(-1) ?? 0) + ROUNDING_MS);
    }
  });

  test('with nothing pending are the connection, the survey and the run', async () => {
    const { spans } = await spansOf();
    expect(spans.map(({ name }) => name)).toEqual(['connect', 'survey', 'run']);
  });

  test('of another attempt have its number, and the run has the number of attempts', async () => {
    const holder = await blockFirstMigration();
    const { spans, code } = await spansOf({
      settings: { lockTimeoutMs: 100 },
      onEvent(event) {
        if (event.type === 'retry') holder.query('commit');
      },
    });
    expect(code).toBeUndefined();
    const attempts = spans.at(-1)?.attempt ?? 0;
    expect(attempts).toBeGreaterThan(1);
    expect(spans.at(-1)).toMatchObject({ name: 'run', error: null });
    expect(named(spans, 'connect').map(({ attempt }) => attempt)).toEqual(
      Array.from({ length: attempts }, (_, index) => index + 1),
    );
    expect(named(spans, 'migration')[0]).toMatchObject({
      filename: files[0],
      attempt: 1,
      ...failed('MIGRATION_FAILED', '55P03'),
    });
    const applied = named(spans, 'migration').filter(({ error }) => error === null);
    expect(applied.map(({ filename }) => filename)).toEqual(files);
  });
});

describe('a run that fails', () => {
  test('in a migration says so in that span and in its own, with the SQLSTATE', async () => {
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`
      truncate graphile_migrate.migrations;
      create function public.refuse_function() returns event_trigger language plpgsql as $$
      begin
        if exists (select from pg_event_trigger_ddl_commands() where schema_name = 'filestore') then
          raise exception 'not today' using errcode = 'FS999';
        end if;
      end $$;
      create event trigger refuse_function on ddl_command_end when tag in ('CREATE FUNCTION')
      execute function public.refuse_function()`);
    const { spans, code } = await spansOf();
    expect(code).toBe('MIGRATION_FAILED');
    expect(spans.slice(-2)).toMatchObject([
      { name: 'migration', ...failed('MIGRATION_FAILED', 'FS999') },
      { name: 'run', ...failed('MIGRATION_FAILED', 'FS999') },
    ]);
  });

  test('because the database cannot be reached ends with the connection', async () => {
    const { spans } = await spansOf({
      env: { DATABASE_URL: 'postgres://app@127.0.0.1:1/app' },
      settings: { connectWaitMs: 0 },
    });
    const where = { database: 'app', serverVersion: null };
    expect(spans).toMatchObject([
      { name: 'connect', ...where, ...failed('CONNECTION_FAILED') },
      { name: 'run', ...where, ...failed('CONNECTION_FAILED') },
    ]);
  });

  test('before it begins, because of its settings, has no spans', async () => {
    expect(await spansOf({ env: { DATABASE_URL: 'nonsense' } })).toEqual({
      spans: [],
      code: 'SETTINGS_INVALID',
    });
  });

  test('because the server refuses has the SQLSTATE of the refusal', async () => {
    const url = new URL(database().url);
    url.pathname = '/no_such_database';
    const { spans } = await spansOf({ env: { DATABASE_URL: url.href } });
    expect(spans).toMatchObject([
      { name: 'connect', ...failed('CONNECTION_FAILED', '3D000') },
      { name: 'run', ...failed('CONNECTION_FAILED', '3D000') },
    ]);
  });

  test('at the lock ends with that span', async () => {
    await forgetLast(database());
    const holder = await database().connect();
    await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const { spans } = await spansOf({ settings: { lockWaitMs: 0 } });
    expect(spans.slice(-2)).toMatchObject([
      { name: 'lock', ...failed('LOCK_NOT_ACQUIRED') },
      { name: 'run', ...failed('LOCK_NOT_ACQUIRED') },
    ]);
  });

  test('because it is stopped says so in the span of the part that it was in', async () => {
    await blockFirstMigration();
    const stop = new AbortController();
    const { spans } = await spansOf({
      signal: stop.signal,
      onEvent: ({ type }) => type === 'migration-start' && stop.abort(),
    });
    expect(spans.slice(-2)).toMatchObject([
      { name: 'migration', filename: files[0], ...failed('RUN_ABORTED') },
      { name: 'run', ...failed('RUN_ABORTED') },
    ]);
  });

  test('because the schema drifted has applied everything', async () => {
    await forgetLast(database());
    await database().query('create table filestore.extra ()');
    const { spans } = await spansOf();
    expect(named(spans, 'migration')).toMatchObject([{ filename: files.at(-1), error: null }]);
    expect(spans.slice(-2)).toMatchObject([
      { name: 'verify', ...failed('SCHEMA_DRIFTED') },
      { name: 'run', ...failed('SCHEMA_DRIFTED') },
    ]);
  });
});
