import { describe, expect, test } from 'vitest';
import { startProxy } from '../../harness/proxy.ts';
import {
  FilestoreError,
  type FleetEvent,
  type FleetMigration,
  fleetStatus,
  migrateFleet,
  migrationStatus,
  RunAbortedError,
  verifyFleet,
} from '../../src/index.ts';
import {
  diverge,
  drift,
  forgetLast,
  lockOut,
  named,
  putAhead,
} from '../support/databases/fleet-databases.ts';
import { databaseForFile, databasesForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const files = committedMigrations();
/** Only read. */
const current = databaseForFile();
const create = databasesForEachTest();

const NOWHERE = 'postgres://app@127.0.0.1:1/app';
const IMPATIENT = { connectWaitMs: 0, lockWaitMs: 0 };

describe('migrateFleet', () => {
  test('migrates each database, and returns a report for each, in the order of the list', async () => {
    const empty = await create('empty');
    const { databases, durationMs } = await migrateFleet({
      databases: named({ paris: empty.url, rome: current().url }),
    });
    expect(databases).toMatchObject([
      {
        name: 'paris',
        state: 'migrated',
        sameAs: null,
        applied: files.map((filename) => ({ filename })),
        database: empty.name,
        schema: { state: 'same' },
      },
      { name: 'rome', state: 'current', sameAs: null, applied: [], alreadyApplied: files.length },
    ]);
    expect(durationMs).toBeGreaterThan(0);
  });

  test('goes on after failures, and returns each with its error', async () => {
    const database = await create();
    const empty = await create('empty');
    await diverge(database);
    const { databases } = await migrateFleet({
      databases: named({ nowhere: NOWHERE, changed: database.url, paris: empty.url }),
      concurrency: 1,
      settings: IMPATIENT,
    });
    expect(databases).toMatchObject([
      { name: 'nowhere', state: 'failed', code: 'CONNECTION_FAILED', error: expect.any(FilestoreError) },
      { name: 'changed', state: 'failed', code: 'HISTORY_REWRITTEN', durationMs: expect.any(Number) },
      { name: 'paris', state: 'migrated' },
    ]);
  });

  test('takes a database that is ahead as a failure, or with allowAhead as it is', async () => {
    const database = await create();
    await putAhead(database);
    const databases = named({ newer: database.url });
    expect((await migrateFleet({ databases })).databases).toMatchObject([
      { state: 'failed', code: 'DATABASE_AHEAD' },
    ]);
    expect((await migrateFleet({ databases, allowAhead: true })).databases).toMatchObject([
      { state: 'ahead', ahead: [expect.stringMatching(/^\d{6}\.sql$/)] },
    ]);
  });

  test('reports what happens, with the name of the database', async () => {
    const database = await create();
    await forgetLast(database);
    const events: FleetEvent<FleetMigration>[] = [];
    await migrateFleet({
      databases: named({ paris: database.url, rome: current().url }),
      concurrency: 1,
      onEvent: (event) => {
        events.push(event);
        if (event.type === 'start') throw new Error('a listener that throws stops nothing');
      },
    });
    const happened = events.map(({ name, ...event }) => [
      name,
      event.type,
      event.type === 'run' ? event.event.type : null,
    ]);
    expect(happened.filter(([, , type]) => type !== 'span')).toEqual([
      ['paris', 'start', null],
      ['paris', 'run', 'plan'],
      ['paris', 'run', 'migration-start'],
      ['paris', 'run', 'migration-end'],
      ['paris', 'end', null],
      ['rome', 'start', null],
      ['rome', 'run', 'plan'],
      ['rome', 'end', null],
    ]);
    expect(events.at(-1)).toMatchObject({ result: { state: 'current' } });
  });
});

test('fleetStatus returns the status of each database', async () => {
  const database = await create();
  const empty = await create('empty');
  await forgetLast(database);
  const { databases } = await fleetStatus({
    databases: named({ new: empty.url, behind: database.url, done: current().url }),
  });
  expect(databases).toMatchObject([
    { name: 'new', state: 'empty', pending: files, applied: [], durationMs: expect.any(Number) },
    { name: 'behind', state: 'pending', pending: files.slice(-1) },
    { name: 'done', state: 'current', applied: files.map(() => ({ hash: expect.any(String) })) },
  ]);
});

test('verifyFleet returns the comparison of each database', async () => {
  const database = await create();
  const empty = await create('empty');
  await drift(database);
  const { databases } = await verifyFleet({
    databases: named({ new: empty.url, changed: database.url, done: current().url }),
  });
  expect(databases).toMatchObject([
    { name: 'new', state: 'unchecked', reason: expect.stringMatching(/lacks/) },
    { name: 'changed', state: 'drifted', differences: [expect.stringMatching(/drifted_here/)] },
    { name: 'done', state: 'same', notes: expect.any(Array) },
  ]);
});

describe('two names of one database', () => {
  test('with the same settings: only the first is run', async () => {
    const empty = await create('empty');
    const { databases } = await migrateFleet({
      databases: named({ first: empty.url, second: empty.url }),
    });
    expect(databases).toMatchObject([
      { name: 'first', state: 'migrated', sameAs: null },
      { name: 'second', state: 'duplicate', sameAs: 'first' },
    ]);
  });

  test('that spell the host differently are recognised by the server, and each migration runs once', async () => {
    const empty = await create('empty');
    const cable = await startProxy(empty.url);
    try {
      const { databases } = await migrateFleet({
        databases: named({ direct: empty.url, elsewhere: current().url, proxied: cable.url }),
      });
      expect(databases).toMatchObject([
        { name: 'direct', sameAs: null },
        { name: 'elsewhere', sameAs: null },
        { name: 'proxied', sameAs: 'direct' },
      ]);
      const applied = databases.flatMap((one) =>
        one.state === 'migrated' ? one.applied.map(({ filename }) => filename) : [],
      );
      expect(applied).toEqual(files);
    } finally {
      await cable.stop();
    }
  });
});

describe('an abort', () => {
  test('stops the runs at work, and the others are not started', async () => {
    const empty = await create('empty');
    const { release } = await lockOut(empty);
    const controller = new AbortController();
    const { databases } = await migrateFleet({
      databases: named({ waits: empty.url, next: current().url, last: NOWHERE }),
      concurrency: 1,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'run' && event.event.type === 'waiting') controller.abort();
      },
    });
    await release();
    expect(databases).toMatchObject([
      { name: 'waits', state: 'failed', code: 'RUN_ABORTED', error: expect.any(RunAbortedError) },
      { name: 'next', state: 'not started', sameAs: null },
      { name: 'last', state: 'not started' },
    ]);
    expect(await migrationStatus({ connectionString: empty.url })).toMatchObject({
      state: 'empty',
      migrators: [],
    });
  });

  test.each([
    ['fleetStatus', fleetStatus],
    ['verifyFleet', verifyFleet],
  ])('stops %s while a server keeps silent', async (_, read) => {
    const cable = await startProxy(current().url);
    try {
      const controller = new AbortController();
      cable.holdAt('filestore.preflight').then(() => controller.abort());
      const { databases } = await read({
        databases: named({ silent: cable.url, next: NOWHERE }),
        concurrency: 1,
        signal: controller.signal,
      });
      expect(databases).toMatchObject([
        {
          name: 'silent',
          state: 'failed',
          code: 'RUN_ABORTED',
          error: { message: expect.stringMatching(/^Stopped on request\. Nothing/) },
        },
        { name: 'next', state: 'not started' },
      ]);
    } finally {
      await cable.stop();
    }
  });

  test('before the start starts nothing', async () => {
    const { databases } = await migrateFleet({
      databases: named({ paris: NOWHERE }),
      signal: AbortSignal.abort(),
    });
    expect(databases).toEqual([{ name: 'paris', state: 'not started', sameAs: null }]);
  });
});
