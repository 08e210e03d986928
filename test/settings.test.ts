import { describe, expect, test } from 'vitest';
import {
  migrationConnection,
  poolConfig,
  poolSettings,
  SettingsError,
  serviceConnection,
} from '../src/index.ts';

const URL_1 = 'postgres://one@host1/db1';
const URL_2 = 'postgres://two@host2/db2';
const URL_3 = 'postgres://three@host3/db3';

describe('the database URL', () => {
  test.each([
    [{ DATABASE_URL: URL_1 }, 'db1', 'db1'],
    [{ DATABASE_URL: URL_1, FILESTORE_DATABASE_URL: URL_2 }, 'db2', 'db2'],
    [
      { DATABASE_URL: URL_1, FILESTORE_DATABASE_URL: URL_2, FILESTORE_MIGRATION_DATABASE_URL: URL_3 },
      'db2',
      'db3',
    ],
    [{ DATABASE_URL: URL_1, FILESTORE_DATABASE_URL: ' ' }, 'db1', 'db1'],
    [{}, undefined, undefined],
  ])('comes from the first variable that is set: %j', (env, service, migration) => {
    expect(serviceConnection(env)?.database).toBe(service);
    expect(migrationConnection(env)?.database).toBe(migration);
  });

  test.each([
    [
      'postgresql://app:s%40fe%2Fword@db.example:6432/file%20store?sslmode=disable',
      {
        host: 'db.example',
        port: 6432,
        user: 'app',
        password: 's@fe/word',
        database: 'file store',
        ssl: false,
      },
    ],
    ['postgres://[::1]/db', { host: '::1', database: 'db' }],
    [
      'postgres:///db?host=/run/postgresql&port=5433',
      { host: '/run/postgresql', port: 5433, database: 'db' },
    ],
    ['postgres://app:pw@/db?host=/run/postgresql', { host: '/run/postgresql', user: 'app', password: 'pw' }],
    ['postgres://host/db?sslmode=no-verify', { ssl: { rejectUnauthorized: false } }],
    ['postgres://host/db?sslmode=require', { ssl: { rejectUnauthorized: true } }],
    ['postgres://host/db?application_name=thumbnails', { application_name: 'thumbnails' }],
    [
      'postgres://host/db?options=-c%20jit%3Doff',
      { options: '-c default_transaction_isolation=read\\ committed -c jit=off' },
    ],
  ])('%s is read in parts', (url, expected) => {
    const connection = serviceConnection({ DATABASE_URL: url });
    expect(connection && poolConfig(connection)).toMatchObject(expected);
  });

  test('leaves to pg what it does not say', () => {
    const connection = serviceConnection({ DATABASE_URL: 'postgres:///db' });
    const config = connection && poolConfig(connection);
    for (const key of ['host', 'port', 'user', 'password', 'ssl']) expect(config).not.toHaveProperty(key);
  });

  test('with a certificate file that is not there names the parameter', () => {
    const connection = serviceConnection({ DATABASE_URL: 'postgres://host/db?sslrootcert=/no/such.pem' });
    expect(() => connection && poolConfig(connection)).toThrow(/sslrootcert.*\/no\/such\.pem/);
  });
});

describe('the pool', () => {
  test('has defaults', () => {
    expect(poolSettings({})).toEqual({ max: 5, idleTimeoutMs: 30_000, connectionTimeoutMs: 10_000 });
  });

  test('takes the variables, the ones of filestore first', () => {
    const shared = {
      PGPOOL_MAX: '7',
      PGPOOL_IDLE_TIMEOUT_MS: '0',
      PGPOOL_CONNECTION_TIMEOUT_MS: '500',
    };
    expect(poolSettings(shared)).toEqual({ max: 7, idleTimeoutMs: 0, connectionTimeoutMs: 500 });
    expect(poolSettings({ ...shared, FILESTORE_PGPOOL_MAX: '9' }).max).toBe(9);
  });

  test('refuses a value by the name of its variable', () => {
    expect(() => poolSettings({ PGPOOL_MAX: 'x' })).toThrow(SettingsError);
    expect(() => poolSettings({ PGPOOL_MAX: '5.5' })).toThrow(/PGPOOL_MAX/);
  });
});
