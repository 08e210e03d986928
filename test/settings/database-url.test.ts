import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { poolConfig, serviceConnection } from '../../src/index.ts';
import { type DatabaseUrl, parseDatabaseUrl, replaceInUrl, tlsOf } from '../../src/settings/database-url.ts';

const FORM = 'postgres://user:password@host:5432/database';
const MODES = 'disable, no-verify, prefer, require, verify-ca, verify-full';
const PARAMETERS = 'host, port, sslmode, sslrootcert, sslcert, sslkey, options, application_name';
const ENCODE = 'percent-encoded (encodeURIComponent does it)';

beforeEach(() => {
  vi.stubEnv('PGPORT', undefined);
  vi.stubEnv('PGSSLMODE', undefined);
});
afterEach(() => {
  vi.unstubAllEnvs();
});

/** What is said about a URL that is refused. */
function refusalOf(url: string): string {
  try {
    return expect.fail(`accepted: ${JSON.stringify(parseDatabaseUrl('DATABASE_URL', url))}`);
  } catch (error) {
    expect(error).toMatchObject({ code: 'SETTINGS_INVALID', setting: 'DATABASE_URL' });
    return (error as Error).message;
  }
}

describe('a database URL is read in parts', () => {
  test.each<[string, DatabaseUrl]>([
    ['postgres:///db', { database: 'db' }],
    [' postgres://host/db\n', { host: 'host', database: 'db' }],
    [
      'postgresql://app:s%40fe%2Fword@db.example:6432/file%20store',
      { host: 'db.example', port: 6432, user: 'app', password: 's@fe/word', database: 'file store' },
    ],
    ['postgres://host/..', { host: 'host', database: '..' }],
    ['postgres://host/%2e', { host: 'host', database: '.' }],
    ['postgres://host/a/../b', { host: 'host', database: 'a/../b' }],
    ['postgres://host/a&b', { host: 'host', database: 'a&b' }],
    ['postgres://host/a=b', { host: 'host', database: 'a=b' }],
    ['postgres://[::1]/db', { host: '::1', database: 'db' }],
    ['postgres:///db?host=/run/[pg]&port=5433', { host: '/run/[pg]', port: 5433, database: 'db' }],
    [
      'postgres://app:pw@/db?host=/run/postgresql',
      { host: '/run/postgresql', user: 'app', password: 'pw', database: 'db' },
    ],
    ['postgres://app:se,cret@host/db', { host: 'host', user: 'app', password: 'se,cret', database: 'db' }],
    ['postgres://host:1/db', { host: 'host', port: 1, database: 'db' }],
    ['postgres://host/db?port=65535', { host: 'host', port: 65_535, database: 'db' }],
    ['postgres://host/db?application_name=a', { host: 'host', database: 'db', applicationName: 'a' }],
    ['postgres://host/db?options=-c%20jit%3Doff', { host: 'host', database: 'db', options: '-c jit=off' }],
    [
      'postgres://host/db?sslrootcert=ca.pem',
      { host: 'host', database: 'db', tls: { mode: 'verify', rootCertificate: 'ca.pem' } },
    ],
    [
      'postgres://host/db?sslmode=no-verify&sslcert=c.pem&sslkey=k.pem',
      { host: 'host', database: 'db', tls: { mode: 'no-verify', certificate: 'c.pem', key: 'k.pem' } },
    ],
  ])('%s', (url, parts) => {
    expect(parseDatabaseUrl('DATABASE_URL', url)).toStrictEqual(parts);
  });

  test.each([
    ['disable', false],
    ['no-verify', { rejectUnauthorized: false }],
    ['prefer', { rejectUnauthorized: true }],
    ['require', { rejectUnauthorized: true }],
    ['verify-ca', { rejectUnauthorized: true }],
    ['verify-full', { rejectUnauthorized: true }],
  ])('which give pg the TLS of sslmode=%s, or of PGSSLMODE if the URL has none', (mode, ssl) => {
    const sslOf = (url: string) => {
      const connection = serviceConnection({ DATABASE_URL: url });
      return connection && poolConfig(connection).ssl;
    };
    expect(sslOf(`postgres://host/db?sslmode=${mode}`)).toEqual(ssl);
    vi.stubEnv('PGSSLMODE', mode);
    expect(sslOf('postgres://host/db')).toEqual(ssl);
    expect(sslOf('postgres://host/db?sslmode=disable')).toBe(false);
  });

  test('and PGSSLMODE is ignored if it is blank, and refused if pg does not know it', () => {
    vi.stubEnv('PGSSLMODE', ' ');
    expect(tlsOf({})).toBeUndefined();
    for (const mode of ['REQUIRE', ' require', 'verify_full', 'true', 'allow', 'constructor']) {
      vi.stubEnv('PGSSLMODE', mode);
      expect(() => tlsOf({})).toThrow(
        expect.objectContaining({
          setting: 'PGSSLMODE',
          message: `PGSSLMODE must be one of ${MODES}. Correct it.`,
        }),
      );
    }
  });

  test('with the port of PGPORT if it has none, which is refused and not quoted if it is no port', () => {
    for (const [text, port] of [['6432', 6432] as const, ['', undefined] as const]) {
      vi.stubEnv('PGPORT', text);
      expect(parseDatabaseUrl('DATABASE_URL', 'postgres://host/db').port).toBe(port);
    }
    for (const port of ['postgres://u:hunter2@h', '0', '99999', '1 ', '1e3', '-1', 'x1']) {
      vi.stubEnv('PGPORT', port);
      expect(() => parseDatabaseUrl('DATABASE_URL', 'postgres://host/db')).toThrow(
        expect.objectContaining({
          setting: 'PGPORT',
          message: 'The port in PGPORT is not a number from 1 to 65535. Correct it.',
        }),
      );
      expect(parseDatabaseUrl('DATABASE_URL', 'postgres://host:1/db').port).toBe(1);
    }
  });
});

describe('a database URL is refused and not quoted', () => {
  test.each([
    [
      'that is not one',
      'app hunter2',
      `is not a valid URL. It must have the form ${FORM}; in user and password, write characters such as @ : / # ? % ${ENCODE}.`,
    ],
    [
      'with another scheme',
      'mysql://app:hunter2@host/app',
      `does not begin with postgres://. It must have the form ${FORM}.`,
    ],
    [
      'without a database',
      'postgres://app:hunter2@host',
      `names no database. It must have the form ${FORM}.`,
    ],
    [
      'with a null character',
      'postgres://app:hunter2%00@host/app',
      'contains %00, which no value of Postgres can have. Remove it.',
    ],
    [
      'with a raw #',
      'postgres://host/app#hunter2',
      'contains a "#". If it belongs to the password, write it as %23 (encodeURIComponent does it).',
    ],
    ...['postgres://app:1/hunter2@host/app', 'postgres://app:1?hunter2@host/app'].map((url) => [
      'with a raw / or ? in the password',
      url,
      `contains an "@" after the host. In user and password, write characters such as / and ? ${ENCODE}; elsewhere write an "@" as %40.`,
    ]),
    ...['&', ';'].map((character) => [
      `with a parameter after ${character}`,
      `postgres://app@host/app${character}password=hunter2`,
      'has a parameter that does not begin with "?". Write "?" before the first parameter and "&" between parameters; in the name of the database, write "&" as %26 and ";" as %3B.',
    ]),
    ...[
      'postgres://db1:5432,db2:5433/app',
      'postgres://db1,db2',
      'postgres://app:hunter2@db1:5432,db2/app',
      'postgres://host/app?host=db1,db2',
    ].map((url) => ['with several hosts', url, `names several hosts. Name one of them: ${FORM}.`]),
    ['with two ports', 'postgres://host:1/db?port=2', 'has the port twice. Remove one of them.'],
    [
      'with a certificate alone',
      'postgres://host/db?sslcert=a',
      'has sslcert without sslkey. Name both files.',
    ],
    ['with a key alone', 'postgres://host/db?sslkey=a', 'has sslkey without sslcert. Name both files.'],
    [
      'with an unknown parameter',
      'postgres://host/db?hunter2',
      `has an unknown parameter, which is not shown here. Remove it, or use one of ${PARAMETERS}. If another program needs it, set a separate URL for this one.`,
    ],
    ...['sslmod=require', '__proto__=1'].map((query) => [
      'with an unknown parameter',
      `postgres://host/db?${query}`,
      expect.stringMatching(/^has an unknown parameter, which is not shown here\./),
    ]),
    ...['SSLMODE', 'Host'].map((name) => [
      'with a parameter in capitals',
      `postgres://host/db?${name}=require`,
      `has the parameter "${name}". Write it as ${name.toLowerCase()}.`,
    ]),
    [
      'with a repeated parameter',
      'postgres://host/db?sslmode=verify-full&sslmode=disable',
      'has the parameter sslmode twice. Remove one of them.',
    ],
    ...['user', 'PASSWORD'].map((name) => [
      `with ${name} as a parameter`,
      `postgres://host/db?${name}=hunter2`,
      `gives the ${name.toLowerCase()} as a parameter. Write it before the host: ${FORM}.`,
    ]),
  ])('%s: %s', (_, url, rest) => {
    const message = refusalOf(url);
    expect(message.slice(0, 13)).toBe('DATABASE_URL ');
    expect(message.slice(13)).toEqual(rest);
    expect(message).not.toContain('hunter2');
  });

  test.each([
    ['user name', 'postgres://app%zz:hunter2@host/app'],
    ['password', 'postgres://app:hunter2%zz@host/app'],
    ['database name', 'postgres://app:hunter2@host/app%2'],
  ])('with a raw % in the %s', (part, url) => {
    expect(refusalOf(url)).toBe(
      `The ${part} in DATABASE_URL contains a "%" that is not followed by two hexadecimal digits. Write a literal % as %25.`,
    );
  });

  test.each(['constructor', 'Require', ''])('with sslmode=%s', (mode) => {
    expect(refusalOf(`postgres://host/db?sslmode=${mode}`)).toBe(
      `sslmode in DATABASE_URL must be one of ${MODES}. Correct it.`,
    );
  });

  test.each(['0', '65536', 'x1', '1x'])('with port=%s', (port) => {
    expect(refusalOf(`postgres://host/db?port=${port}`)).toBe(
      'The port in DATABASE_URL is not a number from 1 to 65535. Correct it.',
    );
  });

  test.each([
    'ssl',
    'requiressl',
    'sslnegotiation',
    'sslpassword',
    'channel_binding',
    'gssencmode',
    'uselibpqcompat',
    'connect_timeout',
    'target_session_attrs',
    'pgbouncer',
    'schema',
    'connection_limit',
    'pool_timeout',
  ])('with %s, a parameter of other programs that is named', (name) => {
    expect(refusalOf(`postgres://host/db?sslmode=require&${name}=hunter2`)).toMatch(
      `has the unknown parameter "${name}". Remove it,`,
    );
  });
});

describe('a database URL with another database', () => {
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

  test('and a user without a password has none, and the host of a computer without PGHOST is localhost', () => {
    vi.stubEnv('PGHOST', undefined);
    const replaced = replaceInUrl('server', 'postgres://app:secret@host/app', { database: 'a', user: 'b' });
    expect(parseDatabaseUrl('server', replaced)).toStrictEqual({ host: 'host', database: 'a', user: 'b' });
    expect(parseDatabaseUrl('server', replaceInUrl('server', 'postgres:///app', { database: 'a' }))).toEqual({
      host: 'localhost',
      database: 'a',
    });
  });

  test('keeps its user and its other parameters', () => {
    const url = 'postgres://app:s%40@host/app?options=-c%20role%3Dx&application_name=a';
    const { database: _, ...others } = parseDatabaseUrl('server', url);
    const replaced = replaceInUrl('server', url, { database: 'other' });
    expect(parseDatabaseUrl('server', replaced)).toEqual({ ...others, database: 'other' });
  });
});
