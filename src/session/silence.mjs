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
/** Looks become rarer while nothing proves that the connection is lost. */
const LONGEST_PAUSE_MS = 60_000;
/** A connection is lost if every look proves it for so long. */
const LOST_AFTER_MS = 20_000;

/**
 * @typedef {object} Watched
 * @property {Client & { processID?: number }} client
 * @property {ClientConfig} config
 * @property {Socket} stream
 * @property {number} openedAt
 * @property {string | undefined} server The start of its server, which identifies it, once it is known.
 */

/** @typedef {'at work' | 'lost' | 'unknown'} Sight What another connection sees. */

/**
 * Ends a connection with ETIMEDOUT if other connections prove for a while that the server cannot be reached,
 * or does not work on its query. Its pending queries then fail.
 * @param {Client} client Connected.
 * @param {ClientConfig} config Its configuration, for other connections.
 * @param {(message: string) => void} [onSilent] Called once for each silence and reason.
 */
export function watchSilence(client, config, onSilent = (message) => process.emitWarning(message)) {
  const stream = /** @type {Socket} */ (client.connection.stream);
  /** @type {Watched} */
  const watched = { client, config, stream, openedAt: performance.now(), server: undefined };
  let following = false;
  const follow = async () => {
    let [before, pauseMs] = [stream.bytesRead, LOOK_AFTER_MS];
    let lostSince = /** @type {number | undefined} */ (undefined);
    const told = new Set();
    while (!isReady(client) && !stream.destroyed) {
      const startedAt = performance.now();
      const sight = await lookAt(watched);
      if (stream.destroyed) return;
      const works = sight === 'at work' || before !== stream.bytesRead;
      before = stream.bytesRead;
      if (works) told.clear();
      if (works || sight === 'unknown') {
        lostSince = undefined;
        pauseMs = Math.min(pauseMs * 1.5, LONGEST_PAUSE_MS);
      } else {
        lostSince ??= startedAt;
        pauseMs = LOOK_AFTER_MS / 2;
      }
      if (performance.now() - (lostSince ?? Number.POSITIVE_INFINITY) > LOST_AFTER_MS) {
        stream.destroy(Object.assign(new Error('it does not answer'), { code: 'ETIMEDOUT' }));
        return;
      }
      if (!works && !told.has(sight)) onSilent(silentMessage(config, sight));
      if (!works) told.add(sight);
      await delay(pauseMs, undefined, { ref: false });
    }
  };
  // The timer starts again with each byte that is sent or received.
  stream.setTimeout(LOOK_AFTER_MS);
  stream.on('timeout', () => {
    if (isReady(client)) {
      learnServer(watched).catch(() => undefined);
      return;
    }
    if (following) return;
    following = true;
    follow().finally(() => {
      following = false;
    });
  });
}

/**
 * @param {ClientConfig} config
 * @param {Sight} sight
 */
function silentMessage({ database }, sight) {
  const start = `The server does not answer on a connection to database "${database}", and`;
  return sight === 'lost'
    ? `${start} seems not to work for it. The connection is ended if that lasts for ${LOST_AFTER_MS / 1000} s.`
    : `${start} another connection cannot see whether it works for it. The connection is kept.`;
}

/**
 * Whether all queries are answered.
 * @param {object} client
 */
function isReady(client) {
  return 'readyForQuery' in client && client.readyForQuery === true;
}

/** Identifies a server from its start to its end, in any session of it. */
const SERVER = 'extract(epoch from pg_catalog.pg_postmaster_start_time())::pg_catalog.text';

/**
 * On a connection that has been idle, so that no query waits for this one. A snapshot could be early for the
 * user of a transaction.
 * @param {Watched} watched
 */
async function learnServer(watched) {
  const { client, server } = watched;
  if (server !== undefined || client.getTransactionStatus?.() !== 'I') return;
  // Once: a role may lack the right, and each attempt begins another idle time.
  watched.server = '';
  const { rows } = await client.query({ text: `select ${SERVER} as server`, types: AS_TEXT });
  watched.server = rows[0].server;
}

/**
 * Looks on another connection whether the server works on the client's query. A pooler makes up the number
 * of a process, so only its silence counts.
 * @param {Watched} watched
 * @returns {Promise<Sight>}
 */
async function lookAt(watched) {
  const { client, config, stream } = watched;
  // The server may have to wait until this side reads.
  if (stream.readableLength > 0) return 'at work';
  const Other = /** @type {new (config: ClientConfig) => Client & { processID?: number }} */ (
    client.constructor
  );
  const other = new Other({ ...config, connectionTimeoutMillis: LOOK_MS });
  other.on('error', () => undefined);
  // TLS replaces it.
  const socket = () => /** @type {Socket} */ (other.connection.stream);
  const timer = setTimeout(() => socket().destroy(), LOOK_MS);
  const addresses = new Set();
  socket().on('connectionAttempt', (address) => addresses.add(address));
  try {
    await other.connect();
    const { rows } = await other.query({ text: LOOK, values: valuesOf(watched), types: AS_TEXT });
    const { pid, server, state } = rows[0];
    if (pid !== String(other.processID)) return 'at work';
    // It has ended, if this is its server: several may be behind one address.
    if (state === null) return server === watched.server ? 'lost' : 'unknown';
    if (state === 'hidden') return 'unknown';
    watched.server = server;
    return state === 'idle' ? 'lost' : 'at work';
  } catch (error) {
    // The name may have another address now, or none.
    const isSamePlace = stream.remoteAddress === undefined || addresses.has(stream.remoteAddress);
    const isSilent = socket().bytesRead === 0 && isOfNetwork(error);
    return isSamePlace && isSilent ? 'lost' : 'unknown';
  } finally {
    clearTimeout(timer);
    socket().destroy();
  }
}

/**
 * Whether no server was reached. Timeouts have no code.
 * @param {unknown} error
 */
function isOfNetwork(error) {
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return /^(|ECONN[A-Z]+|EHOSTUNREACH|ENETUNREACH|EPIPE|ETIMEDOUT)$/.test(code);
}

/** The program may have given other parsers to pg. */
const AS_TEXT = { getTypeParser: () => String };

/** Seconds by which the ages of a session may differ for its client and its server. */
const AGES_DIFFER = 15;

/**
 * The state of the session: null if the server has none of this number, `hidden` if it is that of another
 * client or role. A session that waits for the client to read cannot be at work.
 */
const LOOK = `
select pg_catalog.pg_backend_pid() as pid, s.server, (
  select case
    when a.state is null or (
      s.server is distinct from $2::pg_catalog.text
      and pg_catalog.abs(
        extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) a.backend_start)
          operator(pg_catalog.-) $3::pg_catalog.numeric
      ) operator(pg_catalog.>) ${AGES_DIFFER}
    ) then 'hidden'
    when pg_catalog.starts_with(a.state, 'idle') or a.wait_event is not distinct from 'ClientWrite'
      then 'idle'
    else 'at work'
  end
  from pg_catalog.pg_stat_activity a
  where a.pid operator(pg_catalog.=) $1::pg_catalog.int4
) as state
from (select ${SERVER} as server) s`;

/** @param {Watched} watched */
const valuesOf = ({ client, server, openedAt }) => [
  client.processID ?? 0,
  server,
  (performance.now() - openedAt) / 1000,
];
