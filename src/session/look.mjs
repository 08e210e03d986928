// Looks whether a server works on the queries of connections from which nothing arrives. In plain JavaScript, as
// silence.mjs.
import dns from 'node:dns';
import { performance } from 'node:perf_hooks';

/**
 * @import { Socket } from 'node:net'
 * @import { Client, ClientConfig } from 'pg'
 */

/** The time of a look consists of parts, so that a time in which this process stops counts as one. */
const LOOK_PARTS = 10;

/**
 * @typedef {object} Watched
 * @property {Client & { processID?: number }} client
 * @property {Socket} stream
 * @property {string | undefined} address Of its server; undefined for a Unix socket.
 * @property {number} openedAt
 * @property {string | undefined} server The start of its server, which identifies it, once it is known.
 * @property {number} bytesRead At the last look.
 * @property {number | undefined} lostSince The end of the first of the looks that all prove that it is lost.
 */

/** @typedef {'at work' | 'lost' | 'unknown' | 'refused'} Sight What another connection sees. */

/** Identifies a server from its start to its end, in any session of it. */
export const SERVER = 'extract(epoch from pg_catalog.pg_postmaster_start_time())::pg_catalog.text';

/**
 * Looks whether the server works on the queries of all silent connections: at each of their addresses, until a look
 * that is answered, which answers for all.
 * @param {ClientConfig} config
 * @param {ReadonlySet<Watched>} silent
 * @param {number} longestMs How long one look may take.
 * @returns {Promise<ReadonlyMap<Watched, Sight>>}
 */
export async function lookAtAll(config, silent, longestMs) {
  /** @type {Map<Watched, Sight>} */
  const sights = new Map();
  let unseen = [...silent];
  for (let [next] = unseen; next !== undefined; [next] = unseen) {
    for (const [watched, sight] of await lookAt(config, unseen, next, longestMs)) sights.set(watched, sight);
    unseen = unseen.filter((watched) => !sights.has(watched));
  }
  return sights;
}

/**
 * Looks on another connection.
 * @param {ClientConfig} config
 * @param {readonly Watched[]} silent
 * @param {Watched} one Of these, at whose address to look.
 * @param {number} longestMs
 * @returns {Promise<readonly (readonly [Watched, Sight])[]>} Of those at the address, if there is no answer.
 */
async function lookAt(config, silent, { client, address }, longestMs) {
  const Other = /** @type {new (config: ClientConfig) => Client & { processID?: number }} */ (
    client.constructor
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
  }, longestMs / LOOK_PARTS);
  const tried = preferAddress(first, address);
  try {
    await other.connect();
    const { rows } = await other.query({ text: LOOK, values: valuesOf(silent), types: AS_TEXT });
    return silent.map((watched, place) => [watched, sightOf(watched, rows[place], other.processID)]);
  } catch (error) {
    const isSilent = first.bytesRead === 0 && (partsLeft <= 0 || isUnreachable(error));
    const answer = codeOf(error) === TOO_MANY_CONNECTIONS ? 'refused' : 'unknown';
    // The name may have another address now, or none.
    const sight = isSilent && (address === undefined || tried.has(address)) ? 'lost' : answer;
    return silent.flatMap((watched) => (watched.address === address ? [[watched, sight]] : []));
  } finally {
    clearInterval(timer);
    socket().destroy();
  }
}

/**
 * Lets a socket connect to the given address, if the name still has it. Node would try all addresses of the name, and
 * give each but the last one a quarter of a second, which proves nothing.
 * @param {Socket} stream
 * @param {string | undefined} address
 * @returns {ReadonlySet<unknown>} The addresses to which it tries to connect.
 */
function preferAddress(stream, address) {
  const tried = new Set();
  stream.on('connectionAttempt', (attempted) => tried.add(attempted));
  /** @type {import('node:net').LookupFunction} */
  const lookup = (name, options, done) => {
    dns.lookup(name, { ...options, all: true }, (error, all) => {
      const same = all?.filter((found) => found.address === address) ?? [];
      const chosen = same.length > 0 ? same : (all ?? []);
      if (error || options.all) done(error, chosen);
      else done(null, chosen[0]?.address ?? '', chosen[0]?.family);
    });
  };
  const connect = stream.connect;
  /** As pg calls it: with the path of a socket, or with a port and a host. */
  const connectThere = (/** @type {number} */ port, /** @type {string | undefined} */ host) =>
    Reflect.apply(connect, stream, [host === undefined ? port : { port, host, lookup }]);
  Object.assign(stream, { connect: connectThere });
  return tried;
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
export const AS_TEXT = { getTypeParser: () => String };

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
