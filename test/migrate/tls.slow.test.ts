import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { migrationStatus, runMigrations } from '../../src/index.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { canUse } from '../support/processes/programs.ts';
import { type Certificates, hasOpenssl, makeCertificates } from '../support/servers/certificates.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

describe.skipIf(!canUse('openssl', hasOpenssl()))('a server with TLS', () => {
  let certificates: Certificates;
  let server: OwnServer;
  beforeAll(async () => {
    certificates = makeCertificates();
    server = await startOwnServer({
      listen: 'tcp',
      settings: [...certificates.serverSettings, 'log_connections=on'],
    });
  });
  afterAll(async () => {
    await server?.stop();
    certificates?.remove();
  });

  /** The server's URL. Default: with the host name of its certificate. */
  function urlWith(
    parameters: Readonly<Record<string, string>>,
    host = 'localhost',
    url = server.url,
  ): string {
    const result = new URL(url);
    result.hostname = host;
    for (const [name, value] of Object.entries(parameters)) result.searchParams.set(name, value);
    return result.href;
  }
  const statusOf = (url: string) => migrationStatus({ env: { DATABASE_URL: url } });

  async function asSuperuser<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
    const client = new pg.Client(server.url);
    await client.connect();
    return work(client).finally(() => client.end());
  }

  test('is migrated with TLS on all connections, also that of the thread', async () => {
    await asSuperuser((client) => client.query('create database verified'));
    const url = urlWith({ sslmode: 'verify-full', sslrootcert: certificates.authority });
    const report = await runMigrations({ env: { DATABASE_URL: databaseUrl(url, 'verified') } });
    expect(report.applied).toHaveLength(committedMigrations().length);
    const connections = readFileSync(join(server.folder, 'postgres.log'), 'utf8')
      .split('\n')
      .filter((line) => line.includes('connection authorized: user=postgres database=verified'));
    // The session that has the lock, and the session that migrates.
    expect(connections.length).toBeGreaterThanOrEqual(2);
    for (const line of connections) expect(line).toContain('SSL enabled');
  });

  test.each(['prefer', 'require', 'verify-ca', 'verify-full'])(
    'has its certificate verified with sslmode=%s',
    async (sslmode) => {
      expect(await statusOf(urlWith({ sslmode, sslrootcert: certificates.authority }))).toMatchObject({
        state: 'empty',
      });
      await expect(statusOf(urlWith({ sslmode }))).rejects.toThrow(/authority.*not trusted/);
    },
  );

  test('has its certificate verified when only sslrootcert is given', async () => {
    const parameters = { sslrootcert: certificates.authority };
    expect(await statusOf(urlWith(parameters))).toMatchObject({ state: 'empty' });
    await expect(statusOf(urlWith(parameters, '127.0.0.1'))).rejects.toThrow(/another host name/);
  });

  test('whose certificate is for another host is refused with a remedy', async () => {
    const url = urlWith({ sslmode: 'verify-full', sslrootcert: certificates.authority }, '127.0.0.1');
    await expect(statusOf(url)).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(
        /^Cannot trust .*127\.0\.0\.1.*another host name. Use a host name from the certificate.*ERR_TLS_CERT_ALTNAME_INVALID/,
      ),
      cause: { code: 'ERR_TLS_CERT_ALTNAME_INVALID' },
    });
  });

  test.each([
    ['another authority is known', () => ({ sslrootcert: certificates.otherAuthority })],
    ['no authority is named', () => ({})],
  ])('is refused where %s, with a remedy', async (_, parameters) => {
    await expect(statusOf(urlWith({ sslmode: 'verify-full', ...parameters() }))).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(
        /^Cannot trust .*authority.*is not trusted on this machine. Name .* sslrootcert/,
      ),
    });
  });

  test('is used without a check of its certificate with sslmode=no-verify, and without TLS with disable', async () => {
    expect(await statusOf(urlWith({ sslmode: 'no-verify' }, '127.0.0.1'))).toMatchObject({ state: 'empty' });
    expect(await statusOf(urlWith({ sslmode: 'disable' }))).toMatchObject({ state: 'empty' });
  });

  test('does not make the command line wait, because waiting cannot help', async () => {
    const result = await runCli(['migrate'], {
      env: {
        DATABASE_URL: urlWith({ sslmode: 'verify-full' }),
        FILESTORE_MIGRATION_CONNECT_WAIT_MS: '600000',
      },
    });
    expect(result).toMatchObject({
      exitCode: 1,
      stderr: expect.stringMatching(/^CONNECTION_FAILED: Cannot trust/),
    });
  });

  describe('that asks clients for a certificate', () => {
    let client: { readonly certificate: string; readonly key: string };
    let url: string;
    beforeAll(async () => {
      client = certificates.client('postgres');
      await asSuperuser((session) => session.query('create database guarded'));
      const rules = join(server.folder, 'server', 'data', 'pg_hba.conf');
      const before = readFileSync(rules, 'utf8');
      writeFileSync(rules, 'hostssl guarded all all cert\nhostnossl guarded all all reject\n');
      appendFileSync(rules, before);
      await server.restart('fast');
      url = databaseUrl(urlWith({ sslrootcert: certificates.authority }), 'guarded');
    });

    test('accepts the right certificate, without a password', async () => {
      const withoutPassword = new URL(url);
      withoutPassword.password = '';
      const parameters = { sslcert: client.certificate, sslkey: client.key };
      expect(await statusOf(urlWith(parameters, 'localhost', withoutPassword.href))).toMatchObject({
        state: 'empty',
      });
    });

    test('is migrated with the certificate on all connections, also when a caller gives it', async () => {
      const { hostname, port, username: user, pathname } = new URL(url);
      const ssl = {
        ca: readFileSync(certificates.authority, 'utf8'),
        cert: readFileSync(client.certificate, 'utf8'),
        key: readFileSync(client.key, 'utf8'),
      };
      const connection = { host: hostname, port: Number(port), user, database: pathname.slice(1), ssl };
      expect(await migrationStatus({ connection })).toMatchObject({ state: 'empty' });
      const report = await runMigrations({ connection });
      expect(report.applied).toHaveLength(committedMigrations().length);
      expect(Object.keys(ssl)).toEqual(['ca', 'cert', 'key']);
    });

    test('is migrated by the command line', async () => {
      await asSuperuser((session) => session.query('drop database guarded with (force)'));
      await asSuperuser((session) => session.query('create database guarded'));
      const parameters = { sslcert: client.certificate, sslkey: client.key };
      const env = { DATABASE_URL: urlWith(parameters, 'localhost', url) };
      expect(await runCli(['migrate'], { env })).toMatchObject({ exitCode: 0 });
    });

    test('is reported with another message than a server that refuses the user', async () => {
      await expect(statusOf(url)).rejects.toThrow(/do not allow user "postgres" to connect.*sslcert/);
      await expect(statusOf(urlWith({ sslmode: 'disable' }, 'localhost', url))).rejects.toThrow(
        /do not allow user "postgres" to connect.*demands TLS \(sslmode\)/,
      );
    });

    test('gets no connection when a certificate file is not valid', async () => {
      await expect(statusOf(urlWith({ sslcert: client.certificate }))).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        message: expect.stringMatching(/sslcert without sslkey/),
      });
      const swapped = { sslcert: client.key, sslkey: client.certificate };
      await expect(statusOf(urlWith(swapped))).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        setting: 'sslcert',
        message: expect.stringMatching(/sslcert .* does not contain a certificate in PEM form.*\.key/),
      });
      await expect(
        statusOf(urlWith({ sslcert: client.certificate, sslkey: client.certificate })),
      ).rejects.toMatchObject({ code: 'SETTINGS_INVALID', setting: 'sslkey' });
      await expect(statusOf(urlWith({ sslrootcert: client.key }))).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        setting: 'sslrootcert',
      });
    });
  });
});

test('a server without TLS is refused when TLS is requested, with both remedies', async () => {
  const server = await startOwnServer({ listen: 'tcp' });
  try {
    for (const sslmode of ['require', 'no-verify']) {
      const url = `${server.url}?sslmode=${sslmode}`;
      await expect(migrationStatus({ env: { DATABASE_URL: url } })).rejects.toMatchObject({
        code: 'CONNECTION_FAILED',
        message: expect.stringMatching(
          /with TLS: the server does not support it. Enable it there, or .*sslmode=disable/,
        ),
      });
    }
  } finally {
    await server.stop();
  }
});
