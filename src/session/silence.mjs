// A connection can stay open and transfer nothing: a proxy that stalls, a network that drops packets. TCP
// then ends it after many minutes, or never. In plain JavaScript, because the thread of graphile-migrate
// uses it too.
import { performance } from 'node:perf_hooks';
import { AS_TEXT, lookAtAll, SERVER } from './look.mjs';

/**
 * @import { Socket } from 'node:net'
 * @import { Client, ClientConfig } from 'pg'
 * @import { Sight, Watched } from './look.mjs'
 */

/**
 * Times in milliseconds.
 * @typedef {object} Pace
 * @property {number} lookAfter After so long without an answer, another connection looks whether the server works on the query.
 * @property {number} longestPause Looks become rarer while nothing proves that the connection is lost.
 * @property {number} longestLook How long one look may take.
 * @property {number} lostAfter A connection is lost if every look proves it for so long.
 */

/** @type {Pace} */
const PACE = { lookAfter: 5_000, longestPause: 60_000, longestLook: 5_000, lostAfter: 20_000 };

/**
 * Ends connections to one database with ETIMEDOUT if other connections prove for a while that the server
 * cannot be reached, or does not work on their queries. Their pending queries then fail. One look at a time
 * asks for all, because many statements may wait for one lock when the server has few connections left.
 */
export class SilenceWatch {
  #config;
  #onSilent;
  #pace;
  /** @type {Set<Watched>} */
  #silent = new Set();
  #isLooking = false;
  #pauseMs;
  /** @type {NodeJS.Timeout | undefined} */
  #timer;
  /** @type {Set<Sight>} */
  #told = new Set();

  /**
   * @param {ClientConfig} config The configuration of its connections, for those that look.
   * @param {(message: string) => void} [onSilent] Called once for each silence and reason.
   * @param {Pace} [pace] Tests cannot wait as long as networks need.
   */
  constructor(config, onSilent = (message) => process.emitWarning(message), pace = PACE) {
    this.#config = config;
    this.#onSilent = onSilent;
    this.#pace = pace;
    this.#pauseMs = pace.lookAfter;
  }

  /** @param {Client} client Connected. */
  watch(client) {
    const stream = /** @type {Socket} */ (client.connection.stream);
    const address = stream.remoteAddress;
    const openedAt = performance.now();
    /** @type {Watched} */
    const watched = {
      client,
      stream,
      address,
      openedAt,
      server: undefined,
      bytesRead: 0,
      lostSince: undefined,
    };
    // The timer starts again with each byte that is sent or received.
    stream.setTimeout(this.#pace.lookAfter);
    stream.on('timeout', () => {
      if (isReady(client)) {
        learnServer(watched).catch(() => undefined);
        return;
      }
      if (!this.#silent.has(watched)) watched.bytesRead = stream.bytesRead;
      this.#silent.add(watched);
      this.#pauseMs = this.#pace.lookAfter;
      void this.#look();
    });
  }

  async #look() {
    this.#forgetAnswered();
    if (this.#isLooking || this.#silent.size === 0) return;
    this.#isLooking = true;
    clearTimeout(this.#timer);
    const sights = await lookAtAll(this.#config, this.#silent, this.#pace.longestLook);
    this.#isLooking = false;
    this.#forgetAnswered();
    if (this.#silent.size === 0) return;
    const seen = new Set([...this.#silent].map((watched) => this.#judge(watched, sights.get(watched))));
    this.#warn(seen);
    const { lookAfter, longestPause } = this.#pace;
    this.#pauseMs = seen.has('lost') ? lookAfter / 2 : Math.min(this.#pauseMs * 1.5, longestPause);
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

  /**
   * Takes account of a look, and ends the connection if all looks have proved for a while that it is lost.
   * @param {Watched} watched
   * @param {Sight | undefined} sight
   */
  #judge(watched, sight) {
    const { stream } = watched;
    // The server may have to wait until this side reads.
    const works = stream.readableLength > 0 || watched.bytesRead !== stream.bytesRead;
    watched.bytesRead = stream.bytesRead;
    if (sight === undefined) return undefined;
    watched.lostSince = sight === 'lost' && !works ? (watched.lostSince ?? performance.now()) : undefined;
    if (performance.now() - (watched.lostSince ?? Number.POSITIVE_INFINITY) > this.#pace.lostAfter) {
      stream.destroy(Object.assign(new Error('it does not answer'), { code: 'ETIMEDOUT' }));
    }
    return works ? 'at work' : sight;
  }

  /** @param {Set<Sight | undefined>} seen */
  #warn(seen) {
    const reasons = warningsOf(this.#pace.lostAfter).filter(([sight]) => seen.has(sight));
    if (reasons.length === 0) this.#told.clear();
    for (const [sight, end] of reasons) {
      const start = `The server does not answer on a connection to database "${this.#config.database}", and`;
      if (!this.#told.has(sight)) this.#onSilent(`${start} ${end}`);
      this.#told.add(sight);
    }
  }
}

/** @type {(lostAfter: number) => readonly (readonly [Sight, string])[]} */
const warningsOf = (lostAfter) => [
  ['lost', `seems not to work for it. The connection is ended if that lasts for ${lostAfter / 1000} s.`],
  ['unknown', 'another connection cannot see whether it works for it. The connection is kept.'],
  [
    'refused',
    'has no connection left for one that would see whether it works (53300). The connection is kept.',
  ],
];

/**
 * Whether all queries are answered.
 * @param {object} client
 */
function isReady(client) {
  return 'readyForQuery' in client && client.readyForQuery === true;
}

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
