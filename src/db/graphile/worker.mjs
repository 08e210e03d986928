// Runs graphile-migrate in a thread of its own, where neither the errors it does not catch nor its
// process.exit reach the host. A plain .mjs file: a .ts worker cannot be started under tsx and vitest.
// It reaches into graphile-migrate (its own copy of pg, its settings reader), which is why the package
// pins the version; the tests of the runner fail when these internals move.
import { performance } from 'node:perf_hooks';
import { parentPort, workerData } from 'node:worker_threads';
import { replacePool, requireAsGraphile, requireHere, serialize } from './library.mjs';

/** @import { WorkerCommand, WorkerInput, WorkerMessage } from './messages.ts' */

const input = /** @type {WorkerInput} */ (workerData);

/** SQLSTATEs of the server's warnings and of this schema's; the word "WARNING" depends on the server's language. */
const WARNING = /^(01|FS)/;

/** The migration under way, as the library's log and its queries show it. */
const current = {
  filename: /** @type {string | null} */ (null),
  startedAt: 0,
  inTransaction: false,
  /** Whether the query under way is the migration's own SQL. */
  inBody: false,
  /** Statements of the query under way that are complete. */
  completed: 0,
  recorded: false,
};
/** The first error of the connection; what follows it is a consequence. */
let firstError = /** @type {unknown} */ (undefined);
let failedStatement = /** @type {number | null} */ (null);
let stopped = false;
/** Names of the files that run without lock and statement timeout. */
let unlimited = /** @type {readonly string[]} */ ([]);

/** @param {WorkerMessage} message */
function post(message) {
  parentPort?.postMessage(message);
}

/** @param {import('pg').PoolClient & { connection: import('node:events').EventEmitter }} client */
function observe(client) {
  client.on('error', (error) => {
    firstError ??= error;
    // At once: what the library does next may be to exit.
    postFailure(error);
  });
  client.on('notice', ({ code, message }) => {
    if (WARNING.test(code ?? '')) post({ type: 'warning', message: message ?? '' });
  });
  client.connection.on('commandComplete', () => {
    current.completed += 1;
  });
  client.connection.on('errorMessage', (error) => {
    // What the library throws in the end may be that the connection is gone, and not why.
    firstError ??= error;
    if (current.inBody) failedStatement ??= current.completed + 1;
  });
  const query = /** @type {(...all: unknown[]) => Promise<{ rows: { pid: number }[] }>} */ (
    client.query.bind(client)
  );
  let announced = false;
  const observed = async (/** @type {unknown[]} */ ...all) => {
    if (!announced) {
      announced = true;
      // Asked, since behind a pooler the id that the connection was given is not the server process's.
      const { rows } = await query('select pg_catalog.pg_backend_pid() as pid');
      post({ type: 'connected', pid: rows[0]?.pid ?? 0 });
    }
    const sent = describeQuery(all[0]);
    if (stopped && (sent === 'begin' || sent === 'body')) throw new Error('stopped on request');
    const isUnlimited = sent === 'body' && current.filename !== null && unlimited.includes(current.filename);
    if (!isUnlimited) return send(sent, all);
    // A lock timeout would cancel the waits of "create index concurrently" and leave an invalid index. It blocks
    // nobody while it waits, and the host watches over it.
    await query(setting({ lock_timeout: '0', statement_timeout: '0' }));
    const result = await send(sent, all);
    await query(setting(input.serverSettings));
    return result;
  };
  /** @param {string} sent @param {unknown[]} all */
  const send = async (sent, all) => {
    current.completed = 0;
    current.inBody = sent === 'body';
    const result = await query(...all);
    current.inBody = false;
    noteProgress(sent);
    return result;
  };
  Object.assign(client, { query: observed });
  if (input.clearSession) clearAtEnd(client);
}

/** @param {import('pg').PoolClient & { end: unknown }} client */
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
 * The statement that sets server settings for the session.
 * @param {Readonly<Record<string, string>>} settings
 */
function setting(settings) {
  const entries = Object.entries(settings);
  return {
    text: `select ${entries.map((_, index) => `pg_catalog.set_config($${2 * index + 1}, $${2 * index + 2}, false)`).join(', ')}`,
    values: entries.flat(),
  };
}

/**
 * What a query of the library is for: while a migration runs, its SQL is the one sent as an object without a name.
 * @param {unknown} query
 * @returns {string}
 */
function describeQuery(query) {
  if (typeof query === 'string') return query;
  if (typeof query !== 'object' || query === null) return 'other';
  if ('name' in query) return String(query.name);
  return current.filename === null ? 'other' : 'body';
}

/**
 * A migration has ended once its row is there for good: after the commit, or at once without a transaction.
 * @param {string} sent
 */
function noteProgress(sent) {
  if (sent === 'begin') current.inTransaction = true;
  if (sent === 'migration-insert') current.recorded = true;
  if (sent === 'commit' || sent === 'rollback') current.inTransaction = false;
  // With a commit that fails (a deferred constraint, a cancel) the row goes as well.
  if (sent === 'rollback') current.recorded = false;
  if (current.filename === null || !current.recorded || current.inTransaction) return;
  const { filename, startedAt } = current;
  current.filename = null;
  current.recorded = false;
  post({ type: 'migration-end', filename, durationMs: performance.now() - startedAt });
}

/** @param {string} line */
function noteLogLine(line) {
  const filename = /Running migration '([^']+)'/.exec(line)?.[1];
  if (filename === undefined) return;
  current.filename = filename;
  current.startedAt = performance.now();
  post({ type: 'migration-start', filename });
}

/** @param {unknown} error */
function postFailure(error) {
  post({
    type: 'failed',
    error: serialize(firstError ?? error),
    filename: current.filename,
    statement: failedStatement,
  });
}

/** @returns {Promise<Extract<WorkerCommand, { type: 'go' }>>} */
function untilToldToGo() {
  return new Promise((resolve) => {
    parentPort?.on('message', (/** @type {WorkerCommand} */ command) => {
      if (command.type === 'go') resolve(command);
      else stopped = true;
    });
  });
}

async function run() {
  const told = untilToldToGo();
  // Loaded while the host still asks the database and waits for its lock. Of the library no more than that: what it
  // watches files with takes as long again.
  replacePool(() => input.clientConfig, observe);
  const { migrate } = requireHere('graphile-migrate/dist/commands/migrate.js');
  const { Logger } = requireAsGraphile('@graphile/logger');
  const { getSettings } = requireHere('graphile-migrate/dist/commands/_common.js');
  const { clearAllPools } = requireHere('graphile-migrate/dist/pg.js');
  const settings = await getSettings({ configFile: input.configFile });
  const { makeBookkeeping, ...go } = await told;
  unlimited = go.unlimited;
  try {
    await migrate({
      ...settings,
      ...(!makeBookkeeping && { manageGraphileMigrateSchema: false }),
      // Read for the database's name only: the connection is the replaced pool's.
      connectionString: `postgres:///${encodeURIComponent(input.clientConfig.database)}`,
      rootConnectionString: 'postgres:///',
      databaseOwner: input.clientConfig.user ?? input.clientConfig.database,
      migrationsFolder: input.migrationsFolder,
      pgSettings: input.serverSettings,
      logger: new Logger(
        () => (/** @type {string} */ _level, /** @type {string} */ line) => noteLogLine(line),
      ),
    });
    post({ type: 'done' });
  } catch (error) {
    postFailure(error);
  } finally {
    // Else the library keeps its pool for another 200 ms.
    clearAllPools();
    parentPort?.close();
  }
}

await run();
