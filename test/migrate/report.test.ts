import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  describeEvent,
  type MigrationEvent,
  migrationStatus,
  type RunMigrationsOptions,
  runMigrations,
} from '../../src/index.ts';
import { MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import {
  databaseForEachTest,
  databaseForFile,
  type TestDatabase,
} from '../support/databases/test-database.ts';
import { committedMigrations, migrationNumber, migrationText } from '../support/packages/committed-files.ts';
import { one } from '../support/rows/nodes.ts';

const empty = databaseForFile('empty');
const database = databaseForEachTest();
const files = committedMigrations();
const [first = ''] = files;
const tableOf = (filename: string) =>
  /^create table if not exists filestore\.(\w+)/m.exec(migrationText(filename))?.[1];
/** The first migration after number one that creates a table, else number one. */
const index = Math.max(
  files.findIndex((filename, at) => at > 0 && tableOf(filename) !== undefined),
  0,
);
const before = files.slice(0, index);
const failing = files[index] ?? '';
const table = tableOf(failing);

const envOf = ({ url }: TestDatabase) => ({ DATABASE_URL: url });

/** Runs the migrations, and collects the events without the spans of a trace. */
async function observe(options: RunMigrationsOptions = {}, on = database()) {
  const events: MigrationEvent[] = [];
  const onEvent = (event: MigrationEvent) => {
    if (event.type !== 'span') events.push(event);
    options.onEvent?.(event);
  };
  const outcome = await runMigrations({ env: envOf(on), ...options, onEvent }).then(
    (report) => ({ report, error: undefined }),
    (error) => ({ report: undefined, error }),
  );
  return { ...outcome, events };
}

/** Makes that migration fail when it creates its table. */
const refuseTable = async () =>
  (await empty().connectAsSuperuser()).query(`
    create function public.refuse_table() returns event_trigger language plpgsql as $$
    begin
      if to_regclass('filestore.${table}') is not null then
        raise exception 'no ${table} today' using detail = 'The shop is closed', hint = 'Come again tomorrow';
      end if;
    end
    $$;
    create event trigger refuse_table on ddl_command_end when tag in ('CREATE TABLE')
    execute function public.refuse_table();
  `);

describe('a run that failed', () => {
  test('names the applied migrations, and what failed, where and why; the next run continues from there, and reports the times of its parts', async () => {
    await refuseTable();
    const { error, events } = await observe({}, empty());
    expect(error).toMatchObject({
      name: 'MigrationFailedError',
      code: 'MIGRATION_FAILED',
      applied: before,
      place: { filename: failing, statement: expect.any(Number) },
      sqlState: 'P0001',
      cause: { message: `no ${table} today`, detail: 'The shop is closed', code: 'P0001' },
    });
    expect(error.place.statement).toBeGreaterThan(0);
    expect(error.message).toMatch(
      new RegExp(
        `^Migration ${failing} failed at statement \\d+.*: no ${table} today \\(SQLSTATE P0001\\)\\. The shop is closed\\. Come again tomorrow\\..* It was rolled back\\.${before.length > 0 ? ` Applied before it: ${before.join(', ')}\\.` : ''}`,
      ),
    );
    expect(events.map((event) => [event.type, 'filename' in event ? event.filename : undefined])).toEqual([
      ['plan', undefined],
      ...before.flatMap((filename) => [
        ['migration-start', filename],
        ['migration-end', filename],
      ]),
      ['migration-start', failing],
    ]);

    expect(await migrationStatus({ env: envOf(empty()) })).toMatchObject({
      state: 'pending',
      applied: before.map((filename) => ({ filename: `${migrationNumber(filename)}.sql` })),
      pending: files.slice(index),
    });
    expect(await one(empty(), `select to_regclass('filestore.${table}') as made`)).toEqual({ made: null });
    await (await empty().connectAsSuperuser()).query('drop event trigger refuse_table');
    const next = await observe({}, empty());
    expect(next.report).toMatchObject({
      applied: files.slice(index).map((filename) => ({ filename })),
      alreadyApplied: index,
      schema: { state: 'same' },
    });
    expect(next.events[0]).toMatchObject({ type: 'plan', pending: files.slice(index), adopting: false });

    const { report } = next;
    const durations = report?.applied.map(({ durationMs }) => durationMs) ?? [];
    expect(Math.min(...durations)).toBeGreaterThan(0);
    expect(durations.reduce((sum, duration) => sum + duration, 0)).toBeLessThan(report?.durationMs ?? 0);
    const ends = next.events.flatMap((event) => (event.type === 'migration-end' ? [event.durationMs] : []));
    expect(ends).toEqual(durations);
    expect(report?.attempts).toBe(1);
  });
});

describe('a run', () => {
  test('that waited for another run reports the session and the time', async () => {
    await forgetLast(database());
    const holder = await database().connect();
    await holder.query("set application_name = 'another migrator'");
    await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const waited = { since: 0, for: 0 };
    const { report, events } = await observe({
      onEvent(event) {
        if (event.type !== 'waiting') return;
        waited.since = performance.now();
        holder.query(`select pg_sleep(0.3), pg_advisory_unlock(${MIGRATION_LOCK_KEY})`).then(() => {
          waited.for = performance.now() - waited.since;
        });
      },
    });
    expect(events.slice(0, 3)).toMatchObject([
      { type: 'plan' },
      { type: 'waiting', for: 'lock', holder: { applicationName: 'another migrator' } },
      { type: 'migration-start', filename: files.at(-1) },
    ]);
    expect(report?.waitedForLockMs).toBeGreaterThan(300);
    expect(report?.waitedForLockMs).toBeLessThan(report?.durationMs ?? 0);
  });

  test('that was blocked reports each attempt, and counts each applied migration once', async () => {
    await database().query('truncate graphile_migrate.migrations');
    const holder = await database().connect();
    // The lock allows reads, but no create trigger.
    await holder.query('begin; lock table filestore.backend_mounts, filestore.nodes in row exclusive mode');
    const { report, events } = await observe({
      settings: { lockTimeoutMs: 100 },
      onEvent(event) {
        if (event.type === 'retry') holder.query('commit');
      },
    });
    const retries = events.filter((event) => event.type === 'retry');
    expect(retries[0]).toMatchObject({ attempt: 2, reason: expect.stringContaining(first) });
    expect(report).toMatchObject({
      attempts: 1 + retries.length,
      lockTimeouts: {
        count: retries.length,
        totalMs: retries.reduce((sum, { lockWaitedMs }) => sum + (lockWaitedMs ?? 0), 0),
        longestMs: 100,
      },
      applied: files.map((filename) => ({ filename })),
      alreadyApplied: 0,
    });
    expect(events.filter(({ type }) => type === 'plan')).toHaveLength(1);
    expect(events.slice(0, 4).map(({ type }) => type)).toEqual([
      'plan',
      'migration-start',
      'retry',
      'migration-start',
    ]);
  });
});

describe('a listener', () => {
  const warnings: Error[] = [];
  const note = (warning: Error) => warnings.push(warning);
  beforeEach(() => {
    warnings.length = 0;
    process.on('warning', note);
  });
  afterEach(() => {
    process.off('warning', note);
  });

  test('that throws or rejects does not stop the run or other listeners', async () => {
    const listeners: readonly (readonly [string, () => unknown])[] = [
      [
        'listener broke',
        () => {
          throw new Error('listener broke');
        },
      ],
      ['listener broke', async () => Promise.reject(new Error('listener broke'))],
      ['a value without a text was thrown', () => Promise.reject(Object.create(null))],
    ];
    for (const [warning, listener] of listeners) {
      const lines: string[] = [];
      let heard = 0;
      await forgetLast(database());
      const report = await runMigrations({
        env: envOf(database()),
        onEvent() {
          heard += 1;
          return listener();
        },
        logger: { info: (line) => lines.push(line), warn: (line) => lines.push(line) },
      });
      expect(report.applied).toHaveLength(1);
      expect(lines.length).toBeGreaterThanOrEqual(1 + 2);
      await nextTurn();
      expect(heard).toBeGreaterThan(lines.length);
      expect(warnings.splice(0).map(({ message }) => message)).toEqual(Array(heard).fill(warning));
    }
  });

  test('with a log callback gets the events as lines', async () => {
    await forgetLast(database());
    const lines: string[] = [];
    const { events } = await observe({
      logger: {
        info: (line) => lines.push(line),
        warn: () => {
          throw new Error('the run did not warn');
        },
      },
    });
    expect(lines).toEqual(events.map(describeEvent));
    expect(warnings).toEqual([]);
  });
});
