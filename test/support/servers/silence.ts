import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import pg from 'pg';
import { afterAll, beforeAll } from 'vitest';
import { SilenceWatch } from '../../../src/session/silence.mjs';
import { withClient } from '../../../src/testing/with-client.ts';
import { type OwnServer, startOwnServer } from './own-server.ts';

/** Half of what a service waits. A lost connection is ended after about 16 s. */
const PACE = { lookAfter: 2_500, longestPause: 30_000, longestLook: 2_500, lostAfter: 10_000 };
/** Longer than a lost connection lasts. */
export const LONG_STATEMENT = 'select pg_sleep(20)';
export const PATIENCE_MS = 90_000;
export const CANNOT_SEE = /cannot see whether .* The connection is kept\.$/;

const closers: (() => unknown)[] = [];

/** Runs it after the tests of the file. */
export const closeLater = (close: () => unknown) => closers.push(close);

/** Two servers that a client can take for one: they have the same role and password. */
export function twoServersForFile(): () => readonly [OwnServer, OwnServer] {
  let servers: readonly [OwnServer, OwnServer];
  beforeAll(async () => {
    servers = [await startOwnServer({ listen: 'tcp' }), await startOwnServer({ listen: 'tcp' })];
    const { username, password } = new URL(servers[0].url);
    await withClient(servers[1].url, (admin) => admin.query(`alter role ${username} password '${password}'`));
  });
  afterAll(async () => {
    for (const close of closers.splice(0)) await close();
    for (const server of servers) await server.stop();
  });
  return () => servers;
}

/** @param later What its address is for connections that are opened later. */
export async function openWatched(connectionString: string, later = connectionString) {
  const { clients, warnings } = await openAllWatched([connectionString], later);
  return { client: clients[0] as pg.Client, warnings };
}

export async function openAllWatched(urls: readonly string[], later: string) {
  const warnings: string[] = [];
  const silence = new SilenceWatch({ connectionString: later }, (message) => warnings.push(message), PACE);
  const clients = urls.map((connectionString) => new pg.Client({ connectionString }));
  for (const client of clients) {
    client.on('error', () => undefined);
    await client.connect();
    closeLater(() => client.connection.stream.destroy());
    silence.watch(client);
  }
  return { clients, warnings };
}

/** One address for several servers, which may also pass nothing on for the connections that it has. */
export async function startBalancer(first: string, host = '127.0.0.1', ownPort = '0') {
  let target = new URL(first);
  let isDeaf = false;
  let takeNext: ((client: Socket) => unknown) | undefined;
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (client) => {
    client.on('error', () => undefined);
    if (takeNext?.(client)) return;
    const { hostname, port } = target;
    const back = connect({ port: Number(port), host: hostname, allowHalfOpen: true });
    for (const [from, to] of [
      [client, back],
      [back, client],
    ] as const) {
      const isOld = () => isDeaf && sockets.has(from);
      from.on('data', (data) => isOld() || to.write(data));
      from.on('end', () => isOld() || to.end());
      from.on('close', () => isOld() || to.destroy());
      from.on('error', () => undefined);
    }
    if (!isDeaf) sockets.add(client).add(back);
  });
  server.listen(Number(ownPort), host);
  await once(server, 'listening');
  closeLater(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const url = new URL(first);
  url.hostname = host;
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    pointTo: (next: string) => {
      target = new URL(next);
    },
    holdOldConnections: () => {
      isDeaf = true;
    },
    /** Passes no new connection on for which the function returns true. */
    divert: (take: (client: Socket) => boolean) => {
      takeNext = take;
    },
    /** Keeps its connections, and listens no longer. */
    close: () => server.close(),
  };
}

export type Balancer = Awaited<ReturnType<typeof startBalancer>>;
