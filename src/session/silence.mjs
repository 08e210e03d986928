// A connection can stay open and transfer nothing: a proxy that stalls, a network that drops packets. TCP
// then ends it after many minutes, or never. In plain JavaScript, because the thread of graphile-migrate
// uses it too.
import { performance } from 'node:perf_hooks';
import { setTimeout as delay } from 'node:timers/promises';

/**
 * @import { Socket } from 'node:net'
 * @import { Client, ClientConfig } from 'pg'
 */

/** After so long without an answer, another connection looks whether the server works on the query. */
const LOOK_AFTER_MS = 5_000;
/** How long one look may take. */
const LOOK_MS = 5_000;
/** Looks become rarer while the server works on the query. */
const LONGEST_PAUSE_MS = 60_000;
/** A connection is lost if the server does not work on its query for so long. */
const LOST_AFTER_MS = 20_000;

/**
 * Ends a connection with ETIMEDOUT if the server does not work on its query. Its pending queries then fail.
 * @param {Client} client Connected.
 * @param {ClientConfig} config Its configuration, for other connections.
 * @param {(message: string) => void} [onSilent] Called once for each silence of a server that seems idle.
 */
export function watchSilence(client, config, onSilent = (message) => process.emitWarning(message)) {
  const stream = /** @type {Socket} */ (client.connection.stream);
  let following = false;
  const follow = async () => {
    let [before, pauseMs, told] = [stream.bytesRead, LOOK_AFTER_MS, false];
    let idleSince = /** @type {number | undefined} */ (undefined);
    while (!isReady(client) && !stream.destroyed) {
      const startedAt = performance.now();
      // Answers that this side has not read yet: the server may have to wait for that.
      const works = stream.readableLength > 0 || (await isAtWork(client, config));
      if (before !== stream.bytesRead || works) [idleSince, told] = [undefined, false];
      else idleSince ??= startedAt;
      before = stream.bytesRead;
      if (idleSince === undefined) {
        pauseMs = Math.min(pauseMs * 1.5, LONGEST_PAUSE_MS);
      } else if (performance.now() - idleSince > LOST_AFTER_MS) {
        stream.destroy(Object.assign(new Error('it does not answer'), { code: 'ETIMEDOUT' }));
        return;
      } else {
        pauseMs = LOOK_AFTER_MS / 2;
        if (!told) onSilent(silentMessage(config));
        told = true;
      }
      await delay(pauseMs, undefined, { ref: false });
    }
  };
  // The timer starts again with each byte that is sent or received.
  stream.setTimeout(LOOK_AFTER_MS);
  stream.on('timeout', () => {
    if (following || isReady(client)) return;
    following = true;
    follow().finally(() => {
      following = false;
    });
  });
}

/** @param {ClientConfig} config */
function silentMessage({ database }) {
  const what = `a connection to database "${database}"`;
  const end = `The connection is ended if that lasts for ${LOST_AFTER_MS / 1000} s.`;
  return `The server does not answer on ${what}, and seems not to work for it. ${end}`;
}

/**
 * Whether all queries are answered.
 * @param {object} client
 */
function isReady(client) {
  return 'readyForQuery' in client && client.readyForQuery === true;
}

/**
 * Asks on another connection whether the server works on the client's query. A pooler makes up the number
 * of a process. Its clients may wait for a free session, so only its silence counts.
 * @param {Client & { processID?: number }} client
 * @param {ClientConfig} config
 */
async function isAtWork(client, config) {
  const Other = /** @type {new (config: ClientConfig) => Client & { processID?: number }} */ (
    client.constructor
  );
  const other = new Other({ ...config, connectionTimeoutMillis: LOOK_MS });
  other.on('error', () => undefined);
  const timer = setTimeout(() => other.connection.stream.destroy(), LOOK_MS);
  try {
    await other.connect();
    const { rows } = await other.query({ text: lookAt(client.processID ?? 0), types: AS_TEXT });
    return rows[0].pid !== String(other.processID) || rows[0].works === 't';
  } catch (error) {
    const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
    // A server that refuses the look still runs, unless it is starting or stopping.
    return /^(?!57P|E)[0-9A-Z]{5}$/.test(code);
  } finally {
    clearTimeout(timer);
    other.connection.stream.destroy();
  }
}

/** The program may have given other parsers to pg. */
const AS_TEXT = { getTypeParser: () => String };

/**
 * A session that waits for the client to read cannot be at work. Only some roles see the state of others'
 * sessions.
 * @param {number} pid
 */
const lookAt = (pid) => `
select pg_catalog.pg_backend_pid() as pid, exists (
  select from pg_catalog.pg_stat_activity a
  where a.pid operator(pg_catalog.=) ${pid}
    and (a.state is null or not pg_catalog.starts_with(a.state, 'idle'))
    and a.wait_event is distinct from 'ClientWrite'
) as works`;
