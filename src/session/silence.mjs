// A connection can stay open and transfer nothing: a proxy that stalls, a network that drops packets. TCP
// then ends it after many minutes, or never. In plain JavaScript, because the thread of graphile-migrate
// uses it too.
import { performance } from 'node:perf_hooks';

/**
 * @import { Socket } from 'node:net'
 * @import { Client, ClientConfig } from 'pg'
 */

/** After so long without an answer, another connection looks whether the server works on the query. */
const LOOK_AFTER_MS = 5_000;
/** How long one look may take. It consists of parts, so that a time in which this process stops counts as one. */
const LOOK_MS = 5_000;
const LOOK_PARTS = 10;
/** Looks become rarer while nothing proves that the connection is lost. */
const LONGEST_PAUSE_MS = 60_000;
/** A connection is lost if every look proves it for so long. */
const LOST_AFTER_MS = 20_000;

/**
 * @typedef {object} Watched
 * @property {Client & { processID?: number }} client
 * @property {Socket} stream
 * @property {number} openedAt
 * @property {string | undefined} server The start of its server, which identifies it, once it is known.
 * @property {number} bytesRead At the last look.
 * @property {number | undefined} lostSince The end of the first of the looks that all prove that it is lost.
 */

/** @typedef {'at work' | 'lost' | 'unknown' | 'refused'} Sight What another connection sees. */

/**
 * Ends connections to one database with ETIMEDOUT if other connections prove for a while that the server
 * cannot be reached, or does not work on their queries. Their pending queries then fail. One look at a time
 * asks for all, because many statements may wait for one lock when the server has few connections left.
 */
export class SilenceWatch {
  #config;
  #onSilent;
  /** @type {Set<Watched>} */
  #silent = new Set();
  #isLooking = false;
  #pauseMs = LOOK_AFTER_MS;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;
  /** @type {Set<Sight>} */
  #told = new Set();

  /**
   * @param {ClientConfig} config The configuration of its connections, for those that look.
   * @param {(message: string) => void} [onSilent] Called once for each silence and reason.
   */
  constructor(config, onSilent = (message) => process.emitWarning(message)) {
    this.#config = config;
    this.#onSilent = onSilent;
  }

  /** @param {Client} client Connected. */
  watch(client) {
    const stream = /** @type {Socket} */ (client.connection.stream);
    const openedAt = performance.now();
    /** @type {Watched} */
    const watched = { client, stream, openedAt, server: undefined, bytesRead: 0, lostSince: undefined };
    // The timer starts again with each byte that is sent or received.
    stream.setTimeout(LOOK_AFTER_MS);
    stream.on('timeout', () => {
      if (isReady(client)) {
        learnServer(watched).catch(() => undefined);
        return;
      }
      if (!this.#silent.has(watched)) watched.bytesRead = stream.bytesRead;
      this.#silent.add(watched);
      this.#pauseMs = LOOK_AFTER_MS;
      void this.#look();
    });
  }

  async #look() {
    this.#forgetAnswered();
    if (this.#isLooking || this.#silent.size === 0) return;
    this.#isLooking = true;
    clearTimeout(this.#timer);
    const sights = await lookAt(this.#config, this.#silent);
    this.#isLooking = false;
    this.#forgetAnswered();
    if (this.#silent.size === 0) return;
    const seen = new Set([...this.#silent].map((watched) => judge(watched, sights.get(watched))));
    this.#warn(seen);
    this.#pauseMs = seen.has('lost') ? LOOK_AFTER_MS / 2 : Math.min(this.#pauseMs * 1.5, LONGEST_PAUSE_MS);
    // At once for a connection that became silent during the look.
    this.#timer = setTimeout(() => this.#look(), seen.has(undefined) ? 0 : this.#pauseMs).unref();
  }

  #forgetAnswered() {
    for (const watched of this.#silent) {
      if (!isReady(watched.client) && !watched.stream.destroyed) continue;
      this.#silent.delete(watched);
      watched.lostSince = undefined;
    }
    if (this.#silent.size === 0) this.#told.clear();
  }

  /** @param {Set<Sight | undefined>} seen */
  #warn(seen) {
    const reasons = WARNINGS.filter(([sight]) => seen.has(sight));
    if (reasons.length === 0) this.#told.clear();
    for (const [sight, end] of reasons) {
      const start = `The server does not answer on a connection to database "${this.#config.database}", and`;
      if (!this.#told.has(sight)) this.#onSilent(`${start} ${end}`);
      this.#told.add(sight);
    }
  }
}

/** @type {readonly (readonly [Sight, string])[]} */
const WARNINGS = [
  ['lost', `seems not to work for it. The connection is ended if that lasts for ${LOST_AFTER_MS / 1000} s.`],
  ['unknown', 'another connection cannot see whether it works for it. The connection is kept.'],
  [
    'refused',
    'has no connection left for one that would see whether it works (53300). The connection is kept.',
  ],
];

/**
 * Takes account of a look, and ends the connection if all looks have proved for a while that it is lost.
 * @param {Watched} watched
 * @param {Sight | undefined} sight
 */
function judge(watched, sight) {
  const { stream } = watched;
  // The server may have to wait until this side reads.
  const works = stream.readableLength > 0 || watched.bytesRead !== stream.bytesRead;
  watched.bytesRead = stream.bytesRead;
  if (sight === undefined) return undefined;
  watched.lostSince = sight === 'lost' && !works ? (watched.lostSince ?? performance.now()) : undefined;
  if (performance.now() - (watched.lostSince ?? Number.POSITIVE_INFINITY) > LOST_AFTER_MS) {
    stream.destroy(Object.assign(new Error('it does not answer'), { code: 'ETIMEDOUT' }));
  }
  return works ? 'at work' : sight;
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
 * Looks on another connection whether the server works on the queries of all silent ones.
 * @param {ClientConfig} config
 * @param {ReadonlySet<Watched>} silent
 * @returns {Promise<ReadonlyMap<Watched, Sight>>}
 */
async function lookAt(config, silent) {
  const Other = /** @type {new (config: ClientConfig) => Client & { processID?: number }} */ (
    [...silent][0]?.client.constructor
  );
  // pg's own limit would also end a look while this process stops.
  const other = new Other({ ...config, connectionTimeoutMillis: 0 });
  other.on('error', () => undefined);
  const first = /** @type {Socket} */ (other.connection.stream);
  // TLS adds another socket, which does not count the bytes of the handshake.
  const socket = () => /** @type {Socket} */ (other.connection.stream);
  let partsLeft = LOOK_PARTS;
  const timer = setInterval(() => {
    partsLeft -= 1;
    if (partsLeft === 0) socket().destroy();
  }, LOOK_MS / LOOK_PARTS);
  const addresses = new Set();
  first.on('connectionAttempt', (address) => addresses.add(address));
  try {
    await other.connect();
    const asked = [...silent];
    const { rows } = await other.query({ text: LOOK, values: valuesOf(asked), types: AS_TEXT });
    return new Map(asked.map((watched, place) => [watched, sightOf(watched, rows[place], other.processID)]));
  } catch (error) {
    const isSilent = first.bytesRead === 0 && (partsLeft <= 0 || isUnreachable(error));
    // The name may have another address now, or none.
    const isSamePlace = (/** @type {string | undefined} */ address) =>
      address === undefined || addresses.has(address);
    const answer = codeOf(error) === TOO_MANY_CONNECTIONS ? 'refused' : 'unknown';
    return new Map(
      [...silent].map((one) => [one, isSilent && isSamePlace(one.stream.remoteAddress) ? 'lost' : answer]),
    );
  } finally {
    clearInterval(timer);
    socket().destroy();
  }
}

/**
 * @param {Watched} watched
 * @param {Record<'own' | 'server' | 'state', string | null>} row
 * @param {number | undefined} announced The number of the process that looked. A pooler makes up the number of
 * a process, so only its silence counts.
 * @returns {Sight}
 */
function sightOf(watched, { own, server, state }, announced) {
  if (own !== String(announced)) return 'at work';
  // It has ended, if this is its server: several may be behind one address.
  if (state === null) return server === watched.server ? 'lost' : 'unknown';
  if (state === 'hidden') return 'unknown';
  watched.server = server ?? undefined;
  return state === 'idle' ? 'lost' : 'at work';
}

/**
 * Whether nothing answered. A refusal or reset is an answer, for example of a balancer that drains, and says
 * nothing about older connections.
 * @param {unknown} error
 */
function isUnreachable(error) {
  return /^(EHOSTUNREACH|ENETUNREACH|ETIMEDOUT)$/.test(codeOf(error));
}

/** SQLSTATE of a server or role that has no connection left. */
const TOO_MANY_CONNECTIONS = '53300';

/** @param {unknown} error */
function codeOf(error) {
  return error instanceof Error && 'code' in error ? String(error.code) : '';
}

/** The program may have given other parsers to pg. */
const AS_TEXT = { getTypeParser: () => String };

/** Seconds by which the ages of a session may differ for its client and its server. */
const AGES_DIFFER = 15;

/**
 * The states of the sessions: null if the server has none of this number, `hidden` if it is that of another
 * client or role. A session that waits for the client to read cannot be at work.
 */
const LOOK = `
select
  pg_catalog.pg_backend_pid() as own,
  s.server,
  case
    when a.pid is null then null
    when a.state is null or (
      s.server is distinct from q.server
      and pg_catalog.abs(
        extract(epoch from pg_catalog.clock_timestamp() operator(pg_catalog.-) a.backend_start)
          operator(pg_catalog.-) q.age
      ) operator(pg_catalog.>) ${AGES_DIFFER}
    ) then 'hidden'
    when pg_catalog.starts_with(a.state, 'idle') or a.wait_event is not distinct from 'ClientWrite'
      then 'idle'
    else 'at work'
  end as state
from (select ${SERVER} as server) s
cross join rows from (
  pg_catalog.unnest($1::pg_catalog.int4[]),
  pg_catalog.unnest($2::pg_catalog.text[]),
  pg_catalog.unnest($3::pg_catalog.numeric[])
) with ordinality as q (pid, server, age, place)
left join pg_catalog.pg_stat_activity a on a.pid operator(pg_catalog.=) q.pid
order by q.place`;

/** @param {readonly Watched[]} asked */
const valuesOf = (asked) => [
  asked.map(({ client }) => client.processID ?? 0),
  asked.map(({ server }) => server),
  asked.map(({ openedAt }) => (performance.now() - openedAt) / 1000),
];
