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
import { parseDatabaseUrl, replaceInUrl } from '../../src/settings/database-url.ts';

const URL_1 = 'postgres://one@host1/db1';
const URL_2 = 'postgres://two@host2/db2';
const URL_3 = 'postgres://three@host3/db3';

afterEach(() => {
  vi.unstubAllEnvs();
});

/** The error with which a URL is refused. */
function refusalOf(url: string): unknown {
  try {
    return expect.fail(`accepted: ${JSON.stringify(serviceConnection({ DATABASE_URL: url }))}`);
  } catch (error) {
    return error;
  }
}

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
    ['postgres://host/..', { host: 'host', database: '..' }],
    ['postgres://host/%2e?sslmode=disable', { host: 'host', database: '.' }],
    ['postgres://host/a/../b', { host: 'host', database: 'a/../b' }],
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
      { options: '-c default_transaction_isolation=read\\ committed -c DateStyle=ISO -c jit=off' },
    ],
  ])('%s is read in parts', (url, expected) => {
    const connection = serviceConnection({ DATABASE_URL: url });
    expect(connection && poolConfig(connection)).toMatchObject(expected);
  });

  test('leaves settings that are not in it to pg', () => {
    const connection = serviceConnection({ DATABASE_URL: 'postgres:///db' });
    const config = connection && poolConfig(connection);
    for (const key of ['host', 'port', 'user', 'password', 'ssl']) expect(config).not.toHaveProperty(key);
  });

  test('gets TLS from PGSSLMODE if it does not say it, and other values are refused', () => {
    const sslOf = (url: string) => {
      const connection = serviceConnection({ DATABASE_URL: url });
      return connection && poolConfig(connection).ssl;
    };
    vi.stubEnv('PGSSLMODE', 'require');
    expect(sslOf('postgres://host/db')).toEqual({ rejectUnauthorized: true });
    expect(sslOf('postgres://host/db?sslmode=disable')).toBe(false);
    for (const mode of ['REQUIRE', ' require', 'verify_full', 'true', 'allow']) {
      vi.stubEnv('PGSSLMODE', mode);
      expect(() => sslOf('postgres://host/db')).toThrow(/^PGSSLMODE must be one of disable, .*verify-full/);
    }
  });

  test('gets a missing port from PGPORT, which is refused and not quoted if it is no port', () => {
    vi.stubEnv('PGPORT', '6432');
    expect(serviceConnection({ DATABASE_URL: 'postgres://host/db' })).toMatchObject({ port: 6432 });
    for (const port of ['postgres://u:hunter2@h', '99999']) {
      vi.stubEnv('PGPORT', port);
      expect(String(refusalOf('postgres://host/db'))).toMatch(
        /The port in PGPORT is not a number from 1 to 65535/,
      );
      expect(serviceConnection({ DATABASE_URL: 'postgres://host:1/db' })).toMatchObject({ port: 1 });
    }
  });

  test('is refused with PGREPLICATION, which no query works with', () => {
    vi.stubEnv('PGREPLICATION', 'true');
    const connection = serviceConnection({ DATABASE_URL: URL_1 });
    expect(() => connection && poolConfig(connection)).toThrow(/^PGREPLICATION .*Unset it/);
  });

  test.each([
    ['?SSLMODE=require', /has the parameter "SSLMODE"\. Write it as sslmode\./],
    ['?Host=/run/postgresql', /has the parameter "Host"\. Write it as host\./],
    [
      '?channel_binding=require',
      /has the unknown parameter "channel_binding"\. Remove it, or use one of host, /,
    ],
    ['?requiressl=1', /has the unknown parameter "requiressl"\./],
    ['?sslmode=require&schema=public', /has the unknown parameter "schema"\./],
    ['?sslmod=require', /has an unknown parameter, which is not shown here\./],
    ['?hunter2', /has an unknown parameter, which is not shown here\./],
    ['?__proto__=1', /has an unknown parameter, which is not shown here\./],
    ['?sslmode=verify-full&sslmode=disable', /has the parameter sslmode twice\. Remove one of them\./],
    ['?sslmode=constructor', /sslmode in DATABASE_URL must be one of disable, /],
    ['?sslmode=Require', /sslmode in DATABASE_URL must be one of disable, /],
    ['?sslmode=', /sslmode in DATABASE_URL must be one of disable, /],
    ['?PASSWORD=hunter2', /gives the password as a parameter\./],
  ])('with %s is refused', (query, message) => {
    const error = refusalOf(`postgres://host/db${query}`);
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'DATABASE_URL' });
    expect(String(error)).toMatch(message);
    expect(String(error)).not.toContain('hunter2');
  });

  test.each([
    ['that is not a URL', 'app hunter2'],
    ['with a raw @ and # in the password', 'postgres://app:hunter2@#@host/app'],
    ['with a raw / in the password', 'postgres://app:hunter2/x@host/app'],
    ['with a raw % in the password', 'postgres://app:hunter2%zz@host/app'],
    ['with another scheme', 'mysql://app:hunter2@host/app'],
    ['without a database', 'postgres://app:hunter2@host'],
    ['with a bad port', 'postgres://app:hunter2@host:port/app'],
    ['with a parameter after &', 'postgres://app@host/app&password=hunter2'],
    ['with a parameter after ;', 'postgres://app@host/app;password=hunter2'],
    ['with a null character', 'postgres://app:hunter2%00@host/app'],
  ])('%s is refused and not quoted', (_, url) => {
    const error = refusalOf(url);
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'DATABASE_URL' });
    expect(String(error)).not.toContain('hunter2');
  });

  test.each([
    'postgres://db1:5432,db2:5433/app',
    'postgres://db1,db2/app',
    'postgres://app:hunter2@db1:5432,db2/app',
    'postgres://host/app?host=db1,db2',
  ])('with several hosts is refused: %s', (url) => {
    expect(String(refusalOf(url))).toMatch(/DATABASE_URL names several hosts\. Name one of them/);
    expect(String(refusalOf(url))).not.toContain('hunter2');
  });

  test('may have a comma in its password', () => {
    expect(migrationConnection({ DATABASE_URL: 'postgres://app:se,cret@host/app' })).toMatchObject({
      host: 'host',
      password: 'se,cret',
    });
  });

  test('with two ports is refused, of which libpq takes the other one', () => {
    expect(String(refusalOf('postgres://host:5432/db?port=1'))).toMatch(/has the port twice\. Remove one/);
  });

  test('with a missing certificate file names the parameter', () => {
    const connection = serviceConnection({ DATABASE_URL: 'postgres://host/db?sslrootcert=/no/such.pem' });
    expect(() => connection && poolConfig(connection)).toThrow(/sslrootcert.*\/no\/such\.pem/);
  });
});

describe('the database URL with another database', () => {
  test.each([
    ['postgres://app:secret@db.example:6432/app?sslmode=disable', { host: 'db.example', port: 6432 }],
    ['postgres://app:secret@/app?host=/run/postgres', { host: '/run/postgres' }],
    ['postgres:///app?host=/run/postgres', { host: '/run/postgres' }],
    ['postgres://[::1]/a/../b', { host: '::1' }],
    ['postgres:///app', { host: 'of.variable' }],
  ])('and user leads to the same server: %s', (url, server) => {
    vi.stubEnv('PGHOST', 'of.variable');
    const target = { database: 'other db', user: 'o@ther', password: 's/e:c' };
    const replaced = parseDatabaseUrl('server', replaceInUrl('server', url, target));
    expect(replaced).toMatchObject({ ...server, ...target });
  });

  test('keeps its user and its other parameters', () => {
    const url = 'postgres://app:s%40@host/app?options=-c%20role%3Dx&application_name=a';
    const { database: _, ...others } = parseDatabaseUrl('server', url);
    const replaced = replaceInUrl('server', url, { database: 'other' });
    expect(parseDatabaseUrl('server', replaced)).toEqual({ ...others, database: 'other' });
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
