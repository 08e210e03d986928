import { afterEach, describe, expect, test, vi } from 'vitest';
import {
  getClient,
  migrationConnection,
  migrationSettings,
  poolConfig,
  poolSettings,
  SettingsError,
  serviceConnection,
} from '../../src/index.ts';

const URL_1 = 'postgres://one@host1/db1';
const URL_2 = 'postgres://two@host2/db2';
const URL_3 = 'postgres://three@host3/db3';

afterEach(() => {
  vi.unstubAllEnvs();
});

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

  test('is given to pg in parts, its options after those of the package', () => {
    const connection = serviceConnection({
      DATABASE_URL:
        'postgres://app:pw@host:1/db?sslmode=disable&options=-c%20jit%3Doff&application_name=thumbnails',
    });
    expect(connection && poolConfig(connection)).toMatchObject({
      host: 'host',
      port: 1,
      user: 'app',
      password: 'pw',
      database: 'db',
      ssl: false,
      application_name: 'thumbnails',
      options: '-c default_transaction_isolation=read\\ committed -c DateStyle=ISO -c jit=off',
    });
  });

  test('leaves settings that are not in it to pg', () => {
    const connection = serviceConnection({ DATABASE_URL: 'postgres:///db' });
    const config = connection && poolConfig(connection);
    for (const key of ['host', 'port', 'user', 'password', 'ssl']) expect(config).not.toHaveProperty(key);
  });

  test('is refused with PGREPLICATION, which no query works with', () => {
    vi.stubEnv('PGREPLICATION', 'true');
    const connection = serviceConnection({ DATABASE_URL: URL_1 });
    expect(() => connection && poolConfig(connection)).toThrow(/^PGREPLICATION .*Unset it/);
  });

  test.each([
    ['PGCHANNELBINDING', 'require', 'prefer'],
    ['PGGSSENCMODE', 'require', 'disable'],
    ['PGREQUIREAUTH', 'scram-sha-256', ''],
    ['PGREQUIRESSL', '1', '0'],
  ])('is refused with %s=%s, which pg would not obey, and not with "%s"', (variable, value, harmless) => {
    const connection = serviceConnection({ DATABASE_URL: URL_1 });
    vi.stubEnv(variable, harmless);
    expect(connection && poolConfig(connection)).toMatchObject({ host: 'host1' });
    vi.stubEnv(variable, value);
    expect(() => connection && poolConfig(connection)).toThrow(
      expect.objectContaining({
        setting: variable,
        message: `${variable} asks for a protection that connections of this program do not have. Unset it for this program. PGSSLMODE=verify-full encrypts connections and checks the server.`,
      }),
    );
  });

  test('with a missing certificate file names the parameter', () => {
    const connection = serviceConnection({ DATABASE_URL: 'postgres://host/db?sslrootcert=/no/such.pem' });
    expect(() => connection && poolConfig(connection)).toThrow(/sslrootcert.*\/no\/such\.pem/);
  });
});

describe('the pool', () => {
  test('has defaults', () => {
    expect(poolSettings({})).toEqual({ max: 5, idleTimeoutMs: 30_000, connectTimeoutMs: 10_000 });
  });

  test('uses the variables, those of filestore first', () => {
    const shared = {
      PGPOOL_MAX: '7',
      PGPOOL_IDLE_TIMEOUT_MS: '0',
      PGPOOL_CONNECTION_TIMEOUT_MS: '500',
    };
    expect(poolSettings(shared)).toEqual({ max: 7, idleTimeoutMs: 0, connectTimeoutMs: 500 });
    expect(poolSettings({ ...shared, FILESTORE_PGPOOL_MAX: '9' }).max).toBe(9);
  });

  test('takes numbers up to the longest delay of Node.js, with spaces around them', () => {
    const idleTimeoutMs = 2_147_483_647;
    expect(poolSettings({ PGPOOL_IDLE_TIMEOUT_MS: ` ${idleTimeoutMs} ` })).toMatchObject({ idleTimeoutMs });
    expect(() => poolSettings({ PGPOOL_IDLE_TIMEOUT_MS: `${idleTimeoutMs + 1}` })).toThrow(
      `PGPOOL_IDLE_TIMEOUT_MS is "2147483648", which is not a whole number from 0 to ${idleTimeoutMs}. Correct it, or unset it for the default of 30000.`,
    );
  });

  const MISTYPED = [
    ['PGPOOL_MAX', 'x'],
    ['PGPOOL_MAX', '5.5'],
    ['FILESTORE_PGPOOL_MAX', '0'],
    ['FILESTORE_PGPOOL_IDLE_TIMEOUT_MS', '-1'],
    ['PGPOOL_IDLE_TIMEOUT_MS', '1e3'],
  ] as const;

  test.each(MISTYPED)('refuses %s=%s by name', async (variable, value) => {
    expect(() => poolSettings({ [variable]: value })).toThrow(SettingsError);
    vi.stubEnv('DATABASE_URL', URL_1);
    vi.stubEnv(variable, value);
    await expect(getClient()).rejects.toMatchObject({
      code: 'SETTINGS_INVALID',
      setting: variable,
      message: expect.stringContaining(`${variable} is "${value}", which is not a whole number`),
    });
  });

  test.each(['postgres://app:hunter2@host/app', 'hunter2', '123456789012345'])(
    'does not quote %s',
    (value) => {
      expect(() => poolSettings({ PGPOOL_MAX: value })).toThrow(
        /^PGPOOL_MAX is a text that is not shown here, which/,
      );
    },
  );

  test.each(MISTYPED)(
    'is the only one that reads %s: a single connection is opened also with %s',
    (variable, value) => {
      expect(migrationConnection({ DATABASE_URL: URL_1, [variable]: value })?.database).toBe('db1');
    },
  );

  test.each(['FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS', 'PGPOOL_CONNECTION_TIMEOUT_MS'])(
    'uses %s, and so do the migrations',
    (variable) => {
      const env = { DATABASE_URL: URL_1, [variable]: '700' };
      expect(poolSettings(env).connectTimeoutMs).toBe(700);
      expect(migrationConnection(env)?.connectTimeoutMs).toBe(700);
      expect(() => migrationConnection({ ...env, [variable]: 'soon' })).toThrow(variable);
    },
  );
});

describe('the settings of a run', () => {
  test('come from the caller, else from the environment', () => {
    const env = { FILESTORE_MIGRATION_LOCK_WAIT_MS: '7', FILESTORE_MIGRATION_POOLER: 'session' };
    expect(migrationSettings(env, { lockWaitMs: 9 })).toMatchObject({ lockWaitMs: 9, pooler: 'session' });
    const nothing = { lockWaitMs: undefined, pooler: undefined } as unknown as { lockWaitMs: number };
    expect(migrationSettings(env, nothing)).toEqual(migrationSettings(env));
  });

  test.each([
    ['lockWaitMs', Number.NaN],
    ['connectWaitMs', Number.POSITIVE_INFINITY],
    ['lockTimeoutMs', -5],
    ['statementTimeoutMs', "0'"],
    ['checkTimeoutMs', 1.5],
    ['pooler', 'Session'],
  ])('are refused by name: %s %j', (name, value) => {
    expect(() => migrationSettings({}, { [name]: value })).toThrow(
      expect.objectContaining({ code: 'SETTINGS_INVALID', setting: `settings.${name}` }),
    );
  });

  test('have the pooler with spaces around it, or name its variable, and do not quote what may be a URL', () => {
    const setting = 'FILESTORE_MIGRATION_POOLER';
    expect(migrationSettings({ [setting]: ' session ' }, {}).pooler).toBe('session');
    expect(() => migrationSettings({ [setting]: URL_1 }, {})).toThrow(
      expect.objectContaining({
        setting,
        message: `${setting} must be refuse (the default), or session for a pooler in session mode. Correct it, or unset it.`,
      }),
    );
  });

  test.each([
    ['FILESTORE_MIGRATION_LOCK_WAIT_MS', '5m'],
    ['FILESTORE_MIGRATION_LOCK_TIMEOUT_MS', '-1'],
    ['FILESTORE_MIGRATION_CHECK_TIMEOUT_MS', '1 min'],
    ['FILESTORE_MIGRATION_STATEMENT_TIMEOUT_MS', '1.5'],
    ['FILESTORE_MIGRATION_CONNECT_WAIT_MS', 'soon'],
  ])('are refused by name: %s=%s', (variable, value) => {
    const message = expect.stringContaining(`"${value}", which is not a whole number`);
    expect(() => migrationSettings({ [variable]: value }, {})).toThrow(
      expect.objectContaining({ code: 'SETTINGS_INVALID', setting: variable, message }),
    );
  });
});
