import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import * as calls from '../../src/sql/index.ts';
import { isOfDroppedPublication } from '../support/rows/dropped-publication.ts';
import { type Acknowledged, FileWriter } from '../support/rows/file-writer.ts';
import type { FilledMount } from '../support/rows/fill-mount.ts';
import type { ServerName } from './two-servers.ts';

export interface WriterRecord extends Acknowledged {
  /** Errors that no writer should see. */
  readonly faults: readonly string[];
  readonly written: Readonly<Record<ServerName, number>>;
  readonly refused: number;
  /** From the last answer of one server to the first of the other; undefined when it did not change the server. */
  readonly stallMs: number | undefined;
  /** The longest time between two answers of one server. */
  readonly longestGapMs: number;
}

export interface Writers {
  /** How many operations of all writers a server has acknowledged. */
  writtenTo(server: ServerName): number;
  stop(): Promise<readonly WriterRecord[]>;
}

export interface WritersOptions {
  readonly mount: FilledMount;
  /** A mount of the target that these services use already. */
  readonly neighbour?: FilledMount;
  readonly urls: Readonly<Record<ServerName, string>>;
  /** Whether a writer that is refused goes on where the mount is held. */
  readonly follow: boolean;
}

/** Milliseconds between two questions which server takes writes. */
const POLL_MS = 50;

/** One writer for each directory of the mount. They write until they are stopped. */
export function startWriters({ mount, neighbour, urls, follow }: WritersOptions): Writers {
  const stop = new AbortController();
  const written = { source: 0, target: 0 };
  const running = mount.directoryIds.map(async (directoryId, index): Promise<WriterRecord> => {
    const writer = new FileWriter(calls, mount, directoryId, index);
    const connections = connectionsTo(urls);
    const gaps = measureGaps();
    const own = { source: 0, target: 0 };
    const faults: string[] = [];
    let refused = 0;
    let server: ServerName = 'source';
    let operation = writer.choose();
    if (neighbour !== undefined) {
      await useTarget(await connections.to('target'), neighbour, index);
    }
    while (!stop.signal.aborted) {
      const client = await connections.to(server);
      try {
        await operation(client);
        gaps.answered(server);
        own[server] += 1;
        written[server] += 1;
        operation = writer.choose();
      } catch (error) {
        await client.query('rollback');
        if (follow && calls.isRefusal(error, 'backend_mounts_moving')) {
          refused += 1;
          server = await untilWritable(mount.key, connections, stop.signal).catch((problem) => {
            faults.push(`${problem}`);
            return server;
          });
        } else if (!isOfDroppedPublication(error)) {
          faults.push(`${server}: ${error}`);
          operation = writer.choose();
        }
      }
    }
    await connections.end();
    return { ...writer.acknowledged(), faults, written: own, refused, ...gaps.longest() };
  });
  return {
    writtenTo: (server) => written[server],
    async stop() {
      stop.abort();
      return Promise.all(running);
    },
  };
}

/** As a service whose pool has sessions of both servers. */
async function useTarget(client: pg.Client, neighbour: FilledMount, index: number): Promise<void> {
  await new FileWriter(calls, neighbour, neighbour.directoryIds[0] ?? '', index).doEach(client);
}

/**
 * The server that takes writes to a mount. A service asks before it goes on there: until all of the mount has arrived, the
 * target does not know the latest nodes, and an update of none of them is not refused.
 */
async function untilWritable(
  mountKey: string,
  connections: Connections,
  signal: AbortSignal,
): Promise<ServerName> {
  for (;;) {
    for (const server of ['target', 'source'] as const) {
      try {
        await calls.writableMount(await connections.to(server), { mountKey });
        return server;
      } catch (error) {
        if (signal.aborted) return server;
        if (isOfDownServer(error)) continue;
        if (!calls.isRefusal(error, 'backend_mounts_moving', 'backend_mounts_missing')) throw error;
      }
    }
    await delay(POLL_MS);
  }
}

/** A server that is down says so with class 57P, or with no SQLSTATE at all. */
export function isOfDownServer(error: unknown): boolean {
  const { code } = error as { readonly code?: unknown };
  return typeof code !== 'string' || !/^(?!57P)[0-9A-Z]{5}$/.test(code);
}

interface Connections {
  to(server: ServerName): Promise<pg.Client>;
  end(): Promise<void>;
}

function connectionsTo(urls: Readonly<Record<ServerName, string>>): Connections {
  const clients = new Map<ServerName, pg.Client>();
  return {
    async to(server) {
      const known = clients.get(server);
      if (known !== undefined) return known;
      const client = new pg.Client(urls[server]);
      // The server may be killed. The next operation connects again.
      client.on('error', () => clients.delete(server));
      await client.connect();
      clients.set(server, client);
      return client;
    },
    async end() {
      await Promise.all([...clients.values()].map((client) => client.end()));
    },
  };
}

function measureGaps() {
  let last: { readonly at: number; readonly server: ServerName } | undefined;
  let stallMs: number | undefined;
  let longestGapMs = 0;
  return {
    answered(server: ServerName) {
      const at = performance.now();
      if (last !== undefined && last.server !== server) stallMs = at - last.at;
      else if (last !== undefined) longestGapMs = Math.max(longestGapMs, at - last.at);
      last = { at, server };
    },
    longest: () => ({ stallMs, longestGapMs }),
  };
}
