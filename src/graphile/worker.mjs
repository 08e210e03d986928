// Runs graphile-migrate in a thread, so that its uncaught errors and its process.exit do not reach the
// host. A plain .mjs file, because a .ts worker cannot be started under tsx and vitest. It replaces the
// library's pool, and the functions that run one migration, so the package pins the version. The thread
// does not start if one of them is missing.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import '../node-20.mjs';
import { SilenceWatch } from '../session/silence.mjs';
import { sendUntilLifted, settingStatement } from '../settings/setting-statement.mjs';
import { causeAmong, serialize } from './first-error.mjs';

/**
 * @import { EventEmitter } from 'node:events'
 * @import { PoolClient, PoolConfig } from 'pg'
 * @import { CommandName, DatabaseKind, FailedText, StopRequest, ThreadCommand } from './protocol.ts'
 * @import { ThreadFailure, ThreadInput, ThreadMessage, ThreadTarget } from './protocol.ts'
 */

/** @typedef {PoolClient & { connection: EventEmitter }} LibraryClient */
/** @typedef {(client: LibraryClient, ...rest: unknown[]) => Promise<unknown>} LibraryFunction */

const requireHere = createRequire(import.meta.url);
const requireAsGraphile = createRequire(requireHere.resolve('graphile-migrate'));

const input = /** @type {ThreadInput} */ (workerData);

const SESSION = { isLocal: false };

/** SQLSTATEs of warnings of the server and of this schema: servers may translate the word "WARNING". */
const WARNING = /^(01|FS)/;

const COMPARE_VERSIONS =
  'compare its version (npm ls graphile-migrate) with the one in package.json of this package';

/** Thrown at the first migration that is not among those to apply. */
const END = new Error('the next migration waits for its data checks');

/** @param {Extract<ThreadCommand, { type: 'migrate' }>['limits'] | null} limits */
const begin = (limits) => ({
  limits,
  target: /** @type {ThreadTarget | null} */ (null),
  startedAt: 0,
  /** The first error of a connection. Later errors are consequences. */
  firstError: /** @type {unknown} */ (undefined),
  failed: /** @type {FailedText | null} */ (null),
  /** The SQL of the current migration, once it is `sent`; then `done`, and `recorded` in the history. */
  body: /** @type {{ client: LibraryClient, text: string, completed: number, state: string } | null} */ (
    null
  ),
  /** Whether the SQL of current.sql was sent. */
  ranCurrent: false,
});

/** The state of the current command. */
let current = begin(null);
let stopped = false;

const post = (/** @type {ThreadMessage} */ message) => parentPort?.postMessage(message);

/**
 * A placeholder for the URL. The library reads the name of the database from it, and requires different
 * URLs. In this form, any name is possible, also ".".
 * @param {DatabaseKind} kind
 */
function urlOf(kind) {
  const database = encodeURIComponent(input.connections[kind]?.database ?? '');
  return `socket:/?db=${database}&application_name=${kind}`;
}

/** @type {WeakMap<LibraryClient, DatabaseKind>} */
const kinds = new WeakMap();

/**
 * The library takes URLs only. These pools replace its pools and have the whole configuration, and their
 * clients are observed from the start.
 */
function replacePool() {
  const pg = requireAsGraphile('pg');
  const Pool = pg.Pool;
  pg.Pool = class extends Pool {
    /** @param {{ connectionString: string }} options */
    constructor({ connectionString }) {
      const kind = /** @type {DatabaseKind} */ (connectionString.split('=').at(-1));
      const config = /** @type {PoolConfig} */ (input.connections[kind]);
      /** @type {(client: LibraryClient, done: (error?: unknown) => void) => void} */
      const verify = (client, done) => void prepare(client, kind).then(() => done(), done);
      super({ ...config, verify });
      const silence = new SilenceWatch(config, (message) => post({ type: 'warning', message }));
      this.on('connect', (/** @type {LibraryClient} */ client) => {
        silence.watch(client);
        observe(client, kind);
      });
    }
  };
}

/**
 * @param {LibraryClient} client
 * @param {DatabaseKind} kind
 */
function observe(client, kind) {
  kinds.set(client, kind);
  client.on('error', (error) => {
    current.firstError ??= error;
    // At once, because the library may exit next.
    post({ type: 'lost', failure: failureOf(error) });
  });
  client.on('notice', ({ code, message }) => {
    if (WARNING.test(code ?? '')) post({ type: 'warning', message: message ?? '' });
  });
  const bodyHere = () => (current.body?.client === client ? current.body : null);
  client.connection.on('commandComplete', ({ text }) => {
    const body = bodyHere();
    if (body?.state === 'sent') body.completed += 1;
    else if (body !== null && text.startsWith('INSERT')) body.state = 'recorded';
  });
  client.connection.on('errorMessage', (error) => {
    current.firstError ??= error;
    const body = bodyHere();
    if (body?.state === 'sent') current.failed ??= { text: body.text, statement: body.completed + 1 };
    if (body !== null) current.body = null;
  });
  client.connection.on('readyForQuery', ({ status }) => {
    if (bodyHere()?.state === 'recorded' && status === 'I') end();
  });
  if (input.clearSession) clearAtEnd(client);
}

/** The row of a migration is permanent, which it is before the library's function returns. */
function end() {
  const { target, startedAt } = current;
  if (target !== null) post({ type: 'end', target, durationMs: performance.now() - startedAt });
  [current.target, current.body] = [null, null];
}

/**
 * Pins the settings of a new session, and reports it, before the library gets it.
 * @param {LibraryClient} client
 * @param {DatabaseKind} database
 */
async function prepare(client, database) {
  await sendUntilLifted(() => client.query(settingStatement(input.serverSettings, SESSION)));
  // A query, because a pooler makes up the process id that it sends at the connection.
  const { rows } = await client.query('select pg_catalog.pg_backend_pid() as pid');
  post({ type: 'connected', database, pid: rows[0]?.pid ?? 0 });
}

/** @param {PoolClient & { end: unknown }} client */
function clearAtEnd(client) {
  const end = /** @type {(callback?: () => void) => unknown} */ (client.end.bind(client));
  Object.assign(client, {
    end: async (/** @type {(() => void) | undefined} */ callback) => {
      await client.query('discard all').catch(() => undefined);
      return end(callback);
    },
  });
}

/**
 * Replaces a function of the library, which its other files read from this module at each call.
 * @param {string} file Below dist.
 * @param {string} name
 * @param {(original: LibraryFunction) => LibraryFunction} around
 */
function replace(file, name, around) {
  const module = requireHere(`graphile-migrate/dist/${file}.js`);
  if (typeof module[name] !== 'function') {
    throw new Error(
      `the installed graphile-migrate has no function ${name} in dist/${file}.js; ${COMPARE_VERSIONS}`,
    );
  }
  module[name] = around(module[name]);
}

function replaceFunctions() {
  replace('migration', 'runCommittedMigration', (runIt) => async (client, ...rest) => {
    const { realFilename } = /** @type {{ realFilename: string }} */ (rest[2]);
    if (current.limits !== null && !(realFilename in current.limits)) throw END;
    refuseStopped();
    start(realFilename, client);
    const result = await runIt(client, ...rest);
    if (current.target === null) return result;
    current.target = null;
    throw new Error(`graphile-migrate applied ${realFilename} and does not record it; ${COMPARE_VERSIONS}`);
  });
  replace('instrumentation', 'runQueryWithErrorInstrumentation', (send) => async (client, ...rest) => {
    refuseStopped();
    const { committed } = current.target ?? start(null, client);
    const limits = current.limits?.[committed ?? ''];
    if (limits !== undefined) {
      await client.query(settingStatement(limits.settings, { isLocal: limits.transaction }));
    }
    const body = { client, text: String(rest[0]), completed: 0, state: 'sent' };
    current.body = body;
    const result = await send(client, ...rest);
    body.state = 'done';
    if (limits?.transaction === false) await client.query(settingStatement(input.serverSettings, SESSION));
    return result;
  });
}

/**
 * @param {string | null} committed
 * @param {LibraryClient} client
 */
function start(committed, client) {
  /** @type {ThreadTarget} */
  const target = { committed, database: kinds.get(client) === 'shadow' ? 'shadow' : 'main' };
  current.target = target;
  current.startedAt = performance.now();
  if (committed === null) current.ranCurrent = true;
  post({ type: 'start', target });
  return target;
}

/** A cancel between two statements has no effect, so the next one must not be sent. */
function refuseStopped() {
  if (stopped) throw new Error('stopped on request');
}

/**
 * @param {unknown} error
 * @returns {ThreadFailure}
 */
function failureOf(error) {
  const { firstError, target, startedAt, failed } = current;
  return {
    type: 'failed',
    error: serialize(causeAmong(firstError, error)),
    target,
    ranMs: target === null ? 0 : performance.now() - startedAt,
    failed,
  };
}

/** Loads only this command, because loading the library's file watcher would double the time. */
const load = (/** @type {CommandName} */ name) =>
  requireHere(`graphile-migrate/dist/commands/${name}.js`)[name];

/** @param {ThreadCommand} command */
async function execute(command) {
  const { Logger } = requireAsGraphile('@graphile/logger');
  const settings = {
    ...(await readSettings()),
    ...(command.type === 'migrate' && !command.makeBookkeeping && { manageGraphileMigrateSchema: false }),
    connectionString: urlOf('main'),
    ...(input.connections.shadow !== undefined && { shadowConnectionString: urlOf('shadow') }),
    rootConnectionString: urlOf('root'),
    databaseOwner: input.owner,
    migrationsFolder: command.migrationsFolder,
    // This file sets them before the first query, because the library fails if the server does not know a
    // setting.
    pgSettings: {},
    logger: new Logger(() => () => undefined),
  };
  if (command.type === 'apply') await load('watch')(settings, true);
  else if (command.type === 'commit') await load('commit')(settings, command.message);
  else await load(command.type)(settings);
}

const readSettings = () =>
  requireHere('graphile-migrate/dist/commands/_common.js').getSettings({ configFile: input.configFile });

/** @param {ThreadCommand} command */
async function run(command) {
  current = begin(command.type === 'migrate' ? command.limits : null);
  try {
    await execute(command);
    post({ type: 'done', unchanged: !current.ranCurrent });
  } catch (error) {
    post(error === END ? { type: 'done', unchanged: false } : failureOf(error));
  } finally {
    // Otherwise the library keeps its pools for another 200 ms, in which the database cannot be dropped.
    requireHere('graphile-migrate/dist/pg.js').clearAllPools();
    if (input.single) parentPort?.close();
  }
}

parentPort?.on('message', (/** @type {ThreadCommand | StopRequest} */ message) => {
  if (message.type === 'stop') stopped = true;
  else void ready.then(() => run(message));
});

// Loads while the host reads the database and waits for the lock.
const ready = (async () => {
  replacePool();
  replaceFunctions();
  for (const name of input.preload) load(name);
  requireAsGraphile('@graphile/logger');
  await readSettings();
})();
await ready;
