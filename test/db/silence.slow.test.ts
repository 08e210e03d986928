import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { createSecureContext, TLSSocket } from 'node:tls';
import { describe, expect, inject, test, vi } from 'vitest';
import { closePool, getClient } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { canUse } from '../support/processes/programs.ts';
import { hasOpenssl, makeCertificates } from '../support/servers/certificates.ts';
import { pgbouncerBinary, startPgbouncer } from '../support/servers/pgbouncer.ts';
import {
  type Balancer,
  CANNOT_SEE,
  closeLater,
  LONG_STATEMENT,
  openAllWatched,
  openWatched,
  PATIENCE_MS,
  startBalancer,
  twoServersForFile,
} from '../support/servers/silence.ts';
import { until } from '../support/until.ts';

const servers = twoServersForFile();

/** Answers on TCP and in a TLS handshake, and then no more, as a proxy that waits for its server. */
async function startTlsFront() {
  const certificates = makeCertificates();
  const { certificate, key } = certificates.client('front');
  const context = createSecureContext({ cert: readFileSync(certificate), key: readFileSync(key) });
  certificates.remove();
  const server = createServer((client) => {
    client.once('data', () => {
      client.write('S');
      new TLSSocket(client, { isServer: true, secureContext: context }).on('error', () => undefined).resume();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  closeLater(() => server.close());
  return `postgres://app@127.0.0.1:${(server.address() as AddressInfo).port}/app?sslmode=no-verify`;
}

describe.concurrent('a statement that takes long is not ended', () => {
  test.skipIf(!canUse('pgbouncer', pgbouncerBinary() !== undefined))(
    'by a pooler whose only session works on it',
    async () => {
      const bouncer = await startPgbouncer({
        server: inject('adminUrl'),
        mode: 'transaction',
        poolSize: 1,
      });
      closeLater(() => bouncer.stop());
      const { client, warnings } = await openWatched(bouncer.url('postgres'));
      expect(await client.query(LONG_STATEMENT)).toMatchObject({ rowCount: 1 });
      expect(warnings).toEqual([expect.stringMatching(CANNOT_SEE)]);
    },
    PATIENCE_MS,
  );

  test(
    'by another server that answers at its address',
    async () => {
      const balancer = await startBalancer(servers()[0].url);
      const { client, warnings } = await openWatched(balancer.url);
      balancer.pointTo(servers()[1].url);
      expect(await client.query(LONG_STATEMENT)).toMatchObject({ rowCount: 1 });
      expect(warnings).toEqual([expect.stringMatching(CANNOT_SEE)]);
    },
    PATIENCE_MS,
  );

  test.each<[string, (balancer: Balancer) => void]>([
    ['refuses', (balancer) => balancer.close()],
    ['resets', (balancer) => balancer.divert((client) => Boolean(client.resetAndDestroy()))],
    ['closes', (balancer) => balancer.divert((client) => Boolean(client.resume().end()))],
  ])(
    'by a balancer that drains and %s new connections',
    async (_, drain) => {
      const balancer = await startBalancer(servers()[0].url);
      const { client, warnings } = await openWatched(balancer.url);
      drain(balancer);
      expect(await client.query(LONG_STATEMENT)).toMatchObject({ rowCount: 1 });
      expect(warnings).toEqual([expect.stringMatching(CANNOT_SEE)]);
    },
    PATIENCE_MS,
  );

  test.skipIf(!canUse('openssl', hasOpenssl()))(
    'by a TLS handshake at its address that nothing follows',
    async () => {
      const { client, warnings } = await openWatched(servers()[0].url, await startTlsFront());
      expect(await client.query(LONG_STATEMENT)).toMatchObject({ rowCount: 1 });
      expect(warnings).toEqual([expect.stringMatching(CANNOT_SEE)]);
    },
    PATIENCE_MS,
  );

  test(
    'by a new address of the same name that does not answer',
    async () => {
      const silent = createServer().listen(0, '127.0.0.2');
      await once(silent, 'listening');
      closeLater(() => silent.close());
      const { port } = silent.address() as AddressInfo;
      const later = `postgres://app@127.0.0.2:${port}/app`;
      const { client, warnings } = await openWatched(servers()[0].url, later);
      expect(await client.query(LONG_STATEMENT)).toMatchObject({ rowCount: 1 });
      expect(warnings).toEqual([expect.stringMatching(CANNOT_SEE)]);
    },
    PATIENCE_MS,
  );
});

describe.concurrent('many statements that take long', () => {
  const WAITING = 8;
  /** Of a role that may have a number of connections. */
  async function wait(limit: number) {
    const url = new URL(servers()[0].url);
    url.username = `limit_${limit}`;
    await withClient(servers()[0].url, (admin) =>
      admin.query(`create role ${url.username} login password '${url.password}' connection limit ${limit}`),
    );
    const { clients, warnings } = await openAllWatched(Array(WAITING).fill(url.href), url.href);
    // Two looks.
    await Promise.all(clients.map((client) => client.query('select pg_sleep(7)')));
    return warnings;
  }

  test(
    'are looked at on one other connection at a time',
    async () => {
      // The session of the last look may still be about to end.
      expect(await wait(WAITING + 2)).toEqual([]);
    },
    PATIENCE_MS,
  );

  test(
    'cause one warning if their server has no connection left',
    async () => {
      expect(await wait(WAITING)).toEqual([expect.stringMatching(/has no connection left .* is kept\.$/)]);
    },
    PATIENCE_MS,
  );
});

test.concurrent(
  'a session that ended after an idle time is lost, although its end never arrived',
  async () => {
    const balancer = await startBalancer(servers()[0].url);
    const { client, warnings } = await openWatched(balancer.url);
    const { rows } = await client.query('select pg_backend_pid() as pid');
    await withClient(servers()[0].url, async (admin) => {
      await until(async () => {
        const seen = await admin.query('select query from pg_stat_activity where pid = $1', [rows[0].pid]);
        return /postmaster_start_time/.test(seen.rows[0].query);
      });
      balancer.holdOldConnections();
      await admin.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]);
    });
    await expect(client.query('select 1')).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    expect(warnings).toEqual([expect.stringMatching(/^The server does not answer .* is ended if/)]);
  },
  PATIENCE_MS,
);

test.concurrent(
  'a connection that stops passing data on while it is idle is ended, with the queries that wait for it',
  async () => {
    const balancer = await startBalancer(servers()[0].url);
    const { client } = await openWatched(balancer.url);
    balancer.holdOldConnections();
    // It asks for its server.
    await until(() => !(client as { readonly readyForQuery?: boolean }).readyForQuery);
    await expect(client.query('select 1')).rejects.toMatchObject({ code: 'ETIMEDOUT' });
  },
  PATIENCE_MS,
);

describe('a process that stops for longer than a look takes', () => {
  /** Longer than the proof that a connection is lost. */
  const stop = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_500);

  test.each([
    ['an answer that arrived in the meantime', false, []],
    ['looks again after one without an answer', true, [expect.stringMatching(/is ended if that lasts/)]],
  ])(
    'does not take a server for silent: %s',
    async (_, isHeld, expected) => {
      const balancer = await startBalancer(servers()[0].url);
      const { client, warnings } = await openWatched(balancer.url);
      let looks = 0;
      balancer.divert(() => {
        looks += 1;
        if (looks === 1) stop();
        return looks === 1 && isHeld;
      });
      expect(await client.query('select pg_sleep(25)')).toMatchObject({ rowCount: 1 });
      expect(looks).toBeGreaterThan(1);
      expect(warnings).toEqual(expected);
    },
    PATIENCE_MS,
  );
});

test('closePool closes a connection that passes nothing on, so that the process can end', async () => {
  const balancer = await startBalancer(servers()[0].url);
  vi.stubEnv('FILESTORE_DATABASE_URL', balancer.url);
  const client = await getClient();
  const { stream } = client.connection;
  client.release();
  balancer.holdOldConnections();
  await closePool();
  vi.unstubAllEnvs();
  await until(() => stream.destroyed);
});
