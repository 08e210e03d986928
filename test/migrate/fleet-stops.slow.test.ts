import { describe, expect, test } from 'vitest';
import {
  type FleetDatabase,
  type FleetEvent,
  type FleetMigration,
  fleetStatus,
  type MigrateFleetOptions,
  migrateFleet,
  SettingsError,
} from '../../src/index.ts';
import {
  forgetLast,
  lockOut,
  named,
  putAhead,
  refuseSchema,
  withOption,
} from '../support/databases/fleet-databases.ts';
import { databaseForFile, databasesForEachTest } from '../support/databases/test-database.ts';

/** Only read. */
const current = databaseForFile();
const create = databasesForEachTest();

const NOWHERE = 'postgres://app@127.0.0.1:1/app';

/** URLs of one migrated database that are as different as those of several. */
const doneAs = (name: string) => withOption(current().url, `filestore.test=${name}`);

/** Migrates without patience, and returns the state of each database and the events. */
async function run(databases: readonly FleetDatabase[], options: Partial<MigrateFleetOptions> = {}) {
  const events: FleetEvent<FleetMigration>[] = [];
  const report = await migrateFleet({
    databases,
    settings: { connectWaitMs: 0, lockWaitMs: 60_000 },
    ...options,
    onEvent(event) {
      events.push(event);
      options.onEvent?.(event);
    },
  });
  const states = Object.fromEntries(report.databases.map(({ name, state }) => [name, state]));
  const started = events.flatMap(({ type, name }) => (type === 'start' ? [name] : []));
  return { ...report, states, events, started };
}

describe('a first wave', () => {
  test('that fails leaves all other databases untouched, and the next run goes on', async () => {
    const empty = await create('empty');
    const { allow } = await refuseSchema(empty);
    const urls: Record<string, string> = {};
    for (const name of ['paris', 'rome', 'oslo']) {
      const database = await create();
      await forgetLast(database);
      urls[name] = database.url;
    }
    const others = named(urls);
    const all = [...named({ first: empty.url }), ...others];
    const before = await statusOfEach(others);

    const failed = await run(all, { first: 1 });
    expect(failed.databases[0]).toMatchObject({ state: 'failed', code: 'MIGRATION_FAILED' });
    expect(failed.databases.slice(1)).toEqual(
      others.map(({ name }) => ({ name, sameAs: null, state: 'not started' })),
    );
    expect(failed.started).toEqual(['first']);
    expect(await statusOfEach(others)).toEqual(before);

    await allow();
    const { states } = await run(all, { first: 1 });
    expect(states).toEqual(Object.fromEntries(all.map(({ name }) => [name, 'migrated'])));
  });

  test('ends before another database starts, however many may be at work', async () => {
    const { events, states } = await run(
      named({ one: doneAs('one'), two: doneAs('two'), three: doneAs('three'), four: doneAs('four') }),
      { first: 2 },
    );
    const happened = events.flatMap(({ type, name }) => (type === 'run' ? [] : [`${type} ${name}`]));
    expect(happened.slice(0, 4).sort()).toEqual(['end one', 'end two', 'start one', 'start two']);
    expect(states).toEqual({ one: 'current', two: 'current', three: 'current', four: 'current' });
  });

  test('of several databases runs them all, and one that fails is enough', async () => {
    const { states } = await run(named({ nowhere: NOWHERE, done: doneAs('done'), next: doneAs('next') }), {
      first: 2,
      concurrency: 1,
    });
    expect(states).toEqual({ nowhere: 'failed', done: 'current', next: 'not started' });
  });

  test('is counted in the list, with its duplicates', async () => {
    const { states } = await run(named({ one: NOWHERE, again: NOWHERE, other: doneAs('other') }), {
      first: 2,
    });
    expect(states).toEqual({ one: 'failed', again: 'duplicate', other: 'not started' });
  });

  test('does not change what a later failure does', async () => {
    const { states } = await run(named({ one: doneAs('one'), nowhere: NOWHERE, last: doneAs('last') }), {
      first: 1,
      concurrency: 1,
    });
    expect(states).toEqual({ one: 'current', nowhere: 'failed', last: 'current' });
  });

  test('has not failed where a later version has migrated a database, if that is allowed', async () => {
    const database = await create();
    await putAhead(database);
    const databases = named({ newer: database.url, next: doneAs('next') });
    expect(await run(databases, { first: 1 })).toMatchObject({
      states: { newer: 'failed', next: 'not started' },
    });
    expect(await run(databases, { first: 1, allowAhead: true })).toMatchObject({
      states: { newer: 'ahead', next: 'current' },
    });
  });

  test('that is aborted is the last one', async () => {
    const empty = await create('empty');
    const { release } = await lockOut(empty);
    const controller = new AbortController();
    const { databases } = await run(named({ waits: empty.url, next: doneAs('next') }), {
      first: 1,
      signal: controller.signal,
      onEvent: (event) => {
        if (event.type === 'run' && event.event.type === 'waiting') controller.abort();
      },
    });
    await release();
    expect(databases).toMatchObject([{ code: 'RUN_ABORTED' }, { state: 'not started' }]);
  });

  test.each([0, -1, 1.5, Number.NaN, 3])('of %d of two databases is refused', async (first) => {
    const refused = run(named({ one: NOWHERE, two: doneAs('two') }), { first });
    await expect(refused).rejects.toThrow(SettingsError);
    await expect(refused).rejects.toMatchObject({
      setting: 'first',
      message: expect.stringMatching(/^first is .*not a whole number from 1 to 2\./),
    });
  });
});

describe('stopOnFailure', () => {
  test('starts no other database after a failure', async () => {
    const { states, started } = await run(
      named({ one: doneAs('one'), nowhere: NOWHERE, next: doneAs('next'), last: doneAs('last') }),
      { stopOnFailure: true, concurrency: 1 },
    );
    expect(states).toEqual({ one: 'current', nowhere: 'failed', next: 'not started', last: 'not started' });
    expect(started).toEqual(['one', 'nowhere']);
  });

  test('lets the runs at work end', async () => {
    const empty = await create('empty');
    const { release } = await lockOut(empty);
    const { states } = await run(named({ waits: empty.url, nowhere: NOWHERE, next: doneAs('next') }), {
      stopOnFailure: true,
      concurrency: 2,
      onEvent: (event) => {
        if (event.type === 'end' && event.name === 'nowhere') void release();
      },
    });
    expect(states).toEqual({ waits: 'migrated', nowhere: 'failed', next: 'not started' });
  });

  test('counts in the first wave too', async () => {
    const { states } = await run(named({ nowhere: NOWHERE, done: doneAs('done'), next: doneAs('next') }), {
      first: 2,
      stopOnFailure: true,
      concurrency: 1,
    });
    expect(states).toEqual({ nowhere: 'failed', done: 'not started', next: 'not started' });
  });
});

/** The history of each database, without what differs between two looks. */
async function statusOfEach(databases: readonly FleetDatabase[]) {
  const report = await fleetStatus({ databases });
  return report.databases.map((one) => ({ ...one, durationMs: 0 }));
}
