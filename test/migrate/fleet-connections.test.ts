import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { fleetStatus, migrateFleet, verifyFleet } from '../../src/index.ts';
import { named, withOption } from '../support/databases/fleet-databases.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

/** Only read. */
const current = databaseForFile();
const NOWHERE = 'postgres://app@127.0.0.1:1/app';

describe('a server that is silent', () => {
  let cable: Cable;
  beforeEach(async () => {
    cable = await startProxy(current().url);
  });
  afterEach(() => cable.stop());

  test('from the beginning is a failure, and the next database is asked', async () => {
    cable.pause();
    const { databases } = await fleetStatus({
      databases: named({ silent: cable.url, next: current().url }),
      env: { FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS: '300' },
      concurrency: 1,
    });
    expect(databases).toMatchObject([
      { name: 'silent', state: 'failed', code: 'CONNECTION_FAILED' },
      { name: 'next', state: 'current' },
    ]);
  });
});

test.each([
  ['wait for a server', { FILESTORE_MIGRATION_CONNECT_WAIT_MS: '2147483647' }],
  ['time to connect', { FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS: '2147483647' }],
])('the longest %s that is accepted does not end the run of a database', async (_, env) => {
  const databases = named({ paris: current().url });
  for (const ask of [migrateFleet, fleetStatus, verifyFleet]) {
    expect((await ask({ databases, env })).databases).not.toMatchObject([{ state: 'failed' }]);
  }
});

describe('a fleet', () => {
  test.each([1, 2])('runs at most so many at once: %d', async (concurrency) => {
    let running = 0;
    let most = 0;
    const databases = Array.from({ length: 5 }, (_, index) => ({
      name: `name-${index}`,
      connectionString: withOption(current().url, `work_mem=${index + 1}MB`),
    }));
    await fleetStatus({
      databases,
      concurrency,
      onEvent: ({ type }) => {
        running += Number(type === 'start') - Number(type === 'end');
        most = Math.max(most, running);
      },
    });
    expect(most).toBe(concurrency);
  });
});

describe('with nothing pending', () => {
  let cable: Cable;
  beforeEach(async () => {
    cable = await startProxy(current().url);
  });
  afterEach(() => cable.stop());

  test.each([
    ['migrateFleet', migrateFleet],
    ['fleetStatus', fleetStatus],
  ])('%s takes one connection and one message for each database', async (_, ask) => {
    await ask({ databases: named({ paris: cable.url, rome: withOption(cable.url, 'work_mem=1MB') }) });
    expect(cable.conversations).toEqual([
      ['Q', 'X'],
      ['Q', 'X'],
    ]);
  });
});

describe('what cannot be used is refused before anything runs:', () => {
  test.each([0, 1.5, Number.NaN, 1001])('concurrency %d', async (concurrency) => {
    await expect(fleetStatus({ databases: named({ a: NOWHERE }), concurrency })).rejects.toThrow(
      /^concurrency is .* whole number from 1 to 1000/,
    );
  });

  test('a setting of the environment', async () => {
    const env = { FILESTORE_MIGRATION_LOCK_WAIT_MS: 'long' };
    const told: string[] = [];
    const onEvent = ({ type }: { readonly type: string }) => told.push(type);
    await expect(migrateFleet({ databases: named({ paris: current().url }), env, onEvent })).rejects.toThrow(
      /FILESTORE_MIGRATION_LOCK_WAIT_MS/,
    );
    expect(told).toEqual([]);
  });
});

test('a database given by connection is reached as one given by URL', async () => {
  const { databases } = await fleetStatus({
    databases: [{ name: 'paris', connection: { connectionString: current().url } }],
  });
  expect(databases).toMatchObject([{ state: 'current' }]);
});
