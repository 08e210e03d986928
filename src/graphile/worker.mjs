// Runs graphile-migrate in a thread, so that its uncaught errors and its process.exit do not reach the host.
// A plain .mjs file, because a .ts worker cannot be started under tsx and vitest. It uses internals of graphile-migrate
// (its copy of pg, its settings reader, its log), so the package pins the version. The tests of the runner and of the
// development commands fail when these internals change.
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import '../node-20.mjs';
import { watchSilence } from '../session/silence.mjs';
import { sendUntilLifted, settingStatement } from '../settings/setting-statement.mjs';
import { causeAmong, serialize } from './first-error.mjs';
import { CURRENT_UNCHANGED, isMigrationText, RECORD_QUERY, targetIn } from './library-words.mjs';

/**
 * @import { EventEmitter } from 'node:events'
 * @import { PoolClient } from 'pg'
 * @import { CommandName, DatabaseKind, FailedText, MigrationLimits, StopRequest, ThreadCommand, ThreadInput, ThreadFailure, ThreadMessage, ThreadTarget } from './protocol.ts'
 */

const requireHere = createRequire(import.meta.url);
const requireAsGraphile = createRequire(requireHere.resolve('graphile-migrate'));

const input = /** @type {ThreadInput} */ (workerData);

const SESSION = { isLocal: false };

/** SQLSTATEs of the server's warnings and of this schema's; the word "WARNING" depends on the server's language. */
const WARNING = /^(01|FS)/;

/** The state of the current command, from the library's log and its queries. */
const current = {
  target: /** @type {ThreadTarget | null} */ (null),
  startedAt: 0,
  /** The first error of a connection. Later errors are consequences. */
  firstError: /** @type {unknown} */ (undefined),
  failed: /** @type {FailedText | null} */ (null),
  /** Whether current.sql was not run, because it is already applied. */
  unchanged: false,
  /** Time limits of single migrations, by the name of the file. */
  limits: /** @type {Readonly<Record<string, MigrationLimits>>} */ ({}),
  /** Name of the file before which to stop. */
  before: /** @type {string | null} */ (null),
};
let stopped = false;

/** @param {ThreadMessage} message */
function post(message) {
  parentPort?.postMessage(message);
}

/**
 * A placeholder for the URL. The library reads the name of the database from it, and requires different URLs. In
 * this form, any name is possible, also ".".
 * @param {DatabaseKind} kind
 */
function urlOf(kind) {
  return `socket:/?db=${encodeURIComponent(input.connections[kind]?.database ?? '')}&application_name=${kind}`;
}

/** @param {string} url */
function kindOf(url) {
  return /** @type {DatabaseKind} */ (url.slice(url.lastIndexOf('=') + 1));
}

/**
 * The library takes URLs only. These pools replace its pools and have the whole configuration, and their clients are
 * observed from the start.
 */
function replacePool() {
  const pg = requireAsGraphile('pg');
  const Pool = pg.Pool;
  pg.Pool = class extends Pool {
    /** @param {{ connectionString: string }} options */
    constructor({ connectionString }) {
      const kind = kindOf(connectionString);
      super(input.connections[kind]);
      this.on('connect', (/** @type {any} */ client) => {
        watchSilence(client, /** @type {object} */ (input.connections[kind]), (message) =>
          post({ type: 'warning', message }),
        );
        observe(client, kind);
      });
    }
  };
}

/**
 * @param {PoolClient & { connection: EventEmitter }} client
 * @param {DatabaseKind} database
 */
function observe(client, database) {
  /** Number of completed statements of the current query. */
  let completed = 0;
  /** The SQL of the migration, while it is the current query. */
  let body = /** @type {string | null} */ (null);
  client.on('error', (error) => {
    current.firstError ??= error;
    // At once, because the library may exit next.
    post({ type: 'lost', failure: failureOf(error) });
  });
  client.on('notice', ({ code, message }) => {
    if (WARNING.test(code ?? '')) post({ type: 'warning', message: message ?? '' });
  });
  client.connection.on('commandComplete', () => {
    completed += 1;
  });
  client.connection.on('errorMessage', (error) => {
    current.firstError ??= error;
    if (body !== null) current.failed ??= { text: body, statement: completed + 1 };
  });
  const query = /** @type {(...all: unknown[]) => Promise<{ rows: { pid: number }[] }>} */ (
    client.query.bind(client)
  );
  const noteProgress = progressOf();
  /** @param {unknown[]} all */
  const send = async (all) => {
    completed = 0;
    body = bodyOf(all[0]);
    const result = await query(...all);
    body = null;
    noteProgress(nameOf(all[0]));
    return result;
  };
  let announced = false;
  const observed = async (/** @type {unknown[]} */ ...all) => {
    if (!announced) {
      announced = true;
      await sendUntilLifted(() => query(settingStatement(input.serverSettings, SESSION)));
      // A query, because a pooler makes up the process id that it sends at the connection.
      const { rows } = await query('select pg_catalog.pg_backend_pid() as pid');
      post({ type: 'connected', database, pid: rows[0]?.pid ?? 0 });
    }
    const isBody = bodyOf(all[0]) !== null;
    if ((stopped || isAtEnd()) && (isBody || all[0] === 'begin')) throw new Error('stopped on request');
    if (isMigrationText(all[0])) noteMigrationText();
    const limits = current.limits[current.target?.committed ?? ''];
    if (!isBody || limits === undefined) return send(all);
    await query(settingStatement(limits.settings, { isLocal: limits.transaction }));
    const result = await send(all);
    if (!limits.transaction) await query(settingStatement(input.serverSettings, SESSION));
    return result;
  };
  Object.assign(client, { query: observed });
  if (input.clearSession) clearAtEnd(client);
}

/** @param {PoolClient & { end: unknown }} client */
function clearAtEnd(client) {
  const end = /** @type {(callback?: () => void) => unknown} */ (client.end.bind(client));
  Object.assign(client, {
    end: (/** @type {(() => void) | undefined} */ callback) =>
      client.query('discard all').then(
        () => end(callback),
        () => end(callback),
      ),
  });
}

/**
 * Reports that the SQL of a migration is sent next, even if the library logs unknown words.
 * @throws if the run has to stop before a migration, and the log did not name this one.
 */
function noteMigrationText() {
  if (current.target === null && current.before !== null) {
    throw new Error(
      `graphile-migrate logs words that this package does not know, so the run cannot stop before ${current.before} to evaluate its checks; compare the installed version (npm ls graphile-migrate) with the one in package.json of this package`,
    );
  }
  post({ type: 'sent' });
}

/**
 * The SQL of the migration that runs.
 * @param {unknown} query
 */
function bodyOf(query) {
  return current.target !== null && isMigrationText(query) ? query.text : null;
}

/** @param {unknown} query */
function nameOf(query) {
  if (typeof query === 'string') return query;
  return typeof query === 'object' && query !== null && 'name' in query ? query.name : undefined;
}

/**
 * Notes, for the queries of one client, that a migration has ended: once its row is permanent, which is after the
 * commit, or at once without a transaction.
 */
function progressOf() {
  let inTransaction = false;
  let recorded = false;
  return (/** @type {unknown} */ sent) => {
    if (sent === 'begin') inTransaction = true;
    if (sent === RECORD_QUERY) recorded = true;
    if (sent === 'commit' || sent === 'rollback') inTransaction = false;
    // A commit that fails (a deferred constraint, a cancel) removes the row too.
    if (sent === 'rollback') recorded = false;
    if (current.target === null || !recorded || inTransaction) return;
    const { target, startedAt } = current;
    current.target = null;
    recorded = false;
    post({ type: 'end', target, durationMs: performance.now() - startedAt });
  };
}

/** @param {string} line */
function noteLogLine(line) {
  const target = targetIn(line);
  if (target !== undefined) start(target);
  else if (CURRENT_UNCHANGED.test(line)) current.unchanged = true;
}

/** @param {ThreadTarget} target */
function start(target) {
  current.target = target;
  current.startedAt = performance.now();
  if (!isAtEnd()) post({ type: 'start', target });
}

/** Whether the next migration is the one before which to stop. */
function isAtEnd() {
  return current.before !== null && current.target?.committed === current.before;
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

/** @param {CommandName} name */
function load(name) {
  // Only this command, because loading the library's file watcher would double the time.
  return requireHere(`graphile-migrate/dist/commands/${name}.js`)[name];
}

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
    // This file sets them before the first query, because the library fails if the server does not know a setting.
    pgSettings: {},
    logger: new Logger(() => (/** @type {string} */ _level, /** @type {string} */ line) => noteLogLine(line)),
  };
  if (command.type === 'apply') await load('watch')(settings, true);
  else if (command.type === 'commit') await load('commit')(settings, command.message);
  else await load(command.type)(settings);
}

function readSettings() {
  const { getSettings } = requireHere('graphile-migrate/dist/commands/_common.js');
  return getSettings({ configFile: input.configFile });
}

/** @param {ThreadCommand} command */
async function run(command) {
  const { limits, before } = command.type === 'migrate' ? command : { limits: {}, before: null };
  Object.assign(current, {
    target: null,
    firstError: undefined,
    failed: null,
    unchanged: false,
    limits,
    before,
  });
  try {
    await execute(command);
    post({ type: 'done', unchanged: current.unchanged });
  } catch (error) {
    post(isAtEnd() ? { type: 'done', unchanged: false } : failureOf(error));
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
  for (const name of input.preload) load(name);
  requireAsGraphile('@graphile/logger');
  await readSettings();
})();
await ready;
