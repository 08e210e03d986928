import { setTimeout as delay } from 'node:timers/promises';
import pg, { type Client } from 'pg';

/** One worker's connection, reopened when it is lost. */
export interface Link {
  /** The open connection, or a new one; waits while the server is down. Rejects when the run is aborted. */
  client(): Promise<Client>;
  /** Forgets a connection that broke. */
  drop(): void;
  close(): Promise<void>;
}

export function createLink(url: string, givenUp: AbortSignal, onReconnect: () => void): Link {
  let current: Client | undefined;
  let connectedOnce = false;
  return {
    async client() {
      for (let attempt = 0; current === undefined; attempt += 1) {
        givenUp.throwIfAborted();
        const candidate = new pg.Client(url);
        // Its queries are rejected anyway.
        candidate.on('error', () => undefined);
        try {
          await candidate.connect();
          current = candidate;
          if (connectedOnce) onReconnect();
          connectedOnce = true;
        } catch (error) {
          if (!isConnectionLoss(errorCode(error))) throw error;
          await delay(Math.min(20 * 2 ** attempt, 500));
        }
      }
      return current;
    },
    drop() {
      current?.end().catch(() => undefined);
      current = undefined;
    },
    async close() {
      await current?.end().catch(() => undefined);
      current = undefined;
    },
  };
}

const CONNECTION_LOST = 'connection lost';

/** The SQLSTATE, the system's code, or CONNECTION_LOST for the driver's "Connection terminated". */
export function errorCode(error: unknown): string {
  if (!(error instanceof Error)) return 'no error';
  if ('code' in error && typeof error.code === 'string') return error.code;
  return /connection|not queryable/i.test(error.message) ? CONNECTION_LOST : error.name;
}

/** Whether the connection was lost, so that the outcome of the statement is unknown. */
export function isConnectionLoss(code: string): boolean {
  return code === CONNECTION_LOST || code === 'ENOENT' || /^(57P0[123]|08|ECONN|EPIPE)/.test(code);
}
