import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { SettingsError } from '../../src/index.ts';
import { type FleetDatabase, resolveFleet } from '../../src/settings/fleet-members.ts';

const URL = 'postgres://app:hunter2@db.example/app';

beforeEach(() => {
  vi.stubEnv('PGPORT', undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
});

/** What is said about a list that is refused. */
function refusalOf(databases: readonly FleetDatabase[]): string {
  try {
    return expect.fail(`accepted: ${JSON.stringify(resolveFleet(databases))}`);
  } catch (error) {
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'databases' });
    return (error as SettingsError).message;
  }
}

test('a database of a fleet has a URL or a connection, of which the URL counts', () => {
  const members = resolveFleet([
    { name: 'parÍs/1.a_b-c', connectionString: URL },
    { name: '2', connection: { host: 'rome.example', database: 'app' } },
    { name: 'oslo', connectionString: URL, connection: { database: 'other' } },
    { name: 'bern', connectionString: ' ', connection: { database: 'bern' } },
  ]);
  expect(members.map(({ name, database: { config } }) => [name, config.host, config.database])).toEqual([
    ['parÍs/1.a_b-c', 'db.example', 'app'],
    ['2', 'rome.example', 'app'],
    ['oslo', 'db.example', 'app'],
    ['bern', undefined, 'bern'],
  ]);
});

describe('a list of databases is refused before anything runs:', () => {
  const characters = 'has characters that a name cannot have. Use only letters, digits and . _ / - in it.';
  test.each<[string, readonly FleetDatabase[], string]>([
    ['an empty one', [], 'The list of databases is empty. Name at least one database.'],
    [
      'a name that is there twice',
      [
        { name: 'a', connectionString: URL },
        { name: 'a', connectionString: `${URL}2` },
      ],
      'The name "a" is there twice: database 1 of the list, and database 2 of the list. Give each its own name. Nothing was run.',
    ],
    ...['a b', '-a', '', URL].map((name): [string, readonly FleetDatabase[], string] => [
      'a name with other characters',
      [{ name, connectionString: URL, origin: 'line 7' }],
      `The name of line 7 ${characters} Nothing was run.`,
    ]),
    [
      'no URL',
      [{ name: 'a', connectionString: ' ' }],
      'Database "a" (database 1 of the list): it has no connectionString and no connection. Add one of them. Nothing was run.',
    ],
    [
      'a name and a URL that cannot be used',
      [{ name: 'a b', connectionString: 'postgres://app:hunter2@host' }],
      `The list of databases has 2 problems. Nothing was run.\n  The name of database 1 of the list ${characters}\n  Database 1 of the list: its URL names no database. It must have the form postgres://user:password@host:5432/database.`,
    ],
  ])('%s', (_, databases, message) => {
    expect(refusalOf(databases)).toBe(message);
  });

  test('but a fault of the program is not taken for one of the list', () => {
    const connection = {
      get database(): string {
        throw new RangeError('a fault');
      },
    };
    expect(() => resolveFleet([{ name: 'a', connection }])).toThrow(new RangeError('a fault'));
  });
});

describe('two names have the settings of one database', () => {
  const PARIS = { name: 'paris', connectionString: 'postgres://app:one@db.example/app' };
  const twinOf = (connectionString: string) =>
    resolveFleet([PARIS, { name: 'rome', connectionString }])[1]?.twin;

  test.each([
    ['with another password', 'postgres://app:two@db.example/app'],
    ['with the default port', 'postgres://app:one@db.example:5432/app'],
    ['with another TLS mode', 'postgres://app:one@db.example/app?sslmode=no-verify'],
  ])('%s', (_, url) => {
    expect(twinOf(url)).toBe('paris');
  });

  // A pooler of several tenants chooses the database by the last two.
  test.each([
    ['host', 'postgres://app:one@db2.example/app'],
    ['port', 'postgres://app:one@db.example:5433/app'],
    ['database', 'postgres://app:one@db.example/app2'],
    ['user', 'postgres://app.tenant2:one@db.example/app'],
    ['options', 'postgres://app:one@db.example/app?options=endpoint%3Dtwo'],
  ])('unless the %s differs', (_, url) => {
    expect(twinOf(url)).toBeUndefined();
  });

  test('of which the first is the one that is named', () => {
    const members = resolveFleet([PARIS, { ...PARIS, name: 'rome' }, { ...PARIS, name: 'oslo' }]);
    expect(members.map(({ twin }) => twin)).toEqual([undefined, 'paris', 'paris']);
  });

  test('whose host and port pg takes from the environment', () => {
    const twins = (...urls: readonly string[]) =>
      resolveFleet(urls.map((connectionString, index) => ({ name: `db${index}`, connectionString })))[1]
        ?.twin;
    vi.stubEnv('PGHOST', undefined);
    expect(twins('postgres:///app', 'postgres://localhost:5432/app')).toBe('db0');
    vi.stubEnv('PGHOST', 'db.example');
    vi.stubEnv('PGPORT', '6432');
    expect(twins('postgres:///app', 'postgres://db.example:6432/app')).toBe('db0');
  });
});
