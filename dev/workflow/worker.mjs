// Runs graphile-migrate's development commands in a thread of its own, for the reasons that the runner does: it
// ends the process when an idle connection is lost, and it takes URLs only. It reads the library's log, which is
// why the package pins the version; the tests of the commands fail when these lines change.
import { parentPort, workerData } from 'node:worker_threads';
import { replacePool, requireHere, serialize } from '../../src/db/graphile/library.mjs';

/**
 * @import { WorkflowCommand, WorkflowInput, WorkflowMessage, WorkflowTarget, FailedText } from './messages.ts'
 * @import { DatabaseKind } from './databases.ts'
 */

const input = /** @type {WorkflowInput} */ (workerData);

/** What the command under way is at, as the library's log and its queries show it. */
const current = {
  target: /** @type {WorkflowTarget | null} */ (null),
  failed: /** @type {FailedText | null} */ (null),
  /** The first error of a connection; what follows it is a consequence. */
  lost: /** @type {unknown} */ (undefined),
  unchanged: false,
};

/** @param {WorkflowMessage} message */
function post(message) {
  parentPort?.postMessage(message);
}

/**
 * Stands in for a URL: the library reads the database's name out of it, and each must be another one.
 * @param {DatabaseKind} kind
 */
function urlOf(kind) {
  return `postgres:///${encodeURIComponent(input.connections[kind].database)}?application_name=${kind}`;
}

/** @param {string} url */
function kindOf(url) {
  return /** @type {DatabaseKind} */ (url.slice(url.lastIndexOf('=') + 1));
}

/**
 * @param {import('pg').PoolClient & { connection: import('node:events').EventEmitter, processID: number }} client
 * @param {string} url
 */
function observe(client, url) {
  const session = { database: kindOf(url), pid: client.processID };
  post({ type: 'connected', ...session });
  client.on('end', () => post({ type: 'disconnected', ...session }));
  client.on('error', (error) => {
    current.lost ??= error;
    // At once: what the library does next may be to exit.
    post({ type: 'lost', error: serialize(error) });
  });
  let completed = 0;
  client.connection.on('commandComplete', () => {
    completed += 1;
  });
  const query = /** @type {(...all: unknown[]) => Promise<unknown>} */ (client.query.bind(client));
  const observed = async (/** @type {unknown[]} */ ...all) => {
    completed = 0;
    try {
      return await query(...all);
    } catch (error) {
      const text = bodyOf(all[0]);
      if (text !== null) current.failed ??= { text, statement: completed + 1 };
      throw error;
    }
  };
  Object.assign(client, { query: observed });
}

/**
 * The SQL of a migration is what the library sends as an object with nothing but a text.
 * @param {unknown} query
 */
function bodyOf(query) {
  if (typeof query !== 'object' || query === null || 'name' in query || 'values' in query) return null;
  return 'text' in query && typeof query.text === 'string' ? query.text : null;
}

/** @param {string} line */
function noteLogLine(line) {
  const committed = /^graphile-migrate(?<shadow>\[shadow\])?: Running migration '(?<name>[^']+)'/.exec(line);
  if (committed?.groups !== undefined) {
    const { name = null, shadow } = committed.groups;
    run({ committed: name, database: shadow === undefined ? 'main' : 'shadow' });
  } else if (/^\[[^\]]+\]: Running current\.sql/.test(line)) run({ committed: null, database: 'main' });
  else if (/^\[[^\]]+\]: current\.sql unchanged/.test(line)) current.unchanged = true;
}

/** @param {WorkflowTarget} target */
function run(target) {
  current.target = target;
  post({ type: 'running', target });
}

replacePool((url) => input.connections[kindOf(url)], observe);
const { watch, migrate, commit, uncommit, reset, Logger } = requireHere('graphile-migrate');
const { getSettings } = requireHere('graphile-migrate/dist/commands/_common.js');
const { clearAllPools } = requireHere('graphile-migrate/dist/pg.js');

/** @param {WorkflowCommand} command */
async function execute(command) {
  const settings = {
    ...(await getSettings({ configFile: input.configFile })),
    connectionString: urlOf('main'),
    shadowConnectionString: urlOf('shadow'),
    rootConnectionString: urlOf('root'),
    databaseOwner: input.owner,
    migrationsFolder: command.migrationsFolder,
    pgSettings: input.serverSettings,
    logger: new Logger(() => (/** @type {string} */ _level, /** @type {string} */ line) => noteLogLine(line)),
  };
  if (command.type === 'apply') await watch(settings, true);
  else if (command.type === 'migrate') await migrate(settings);
  else if (command.type === 'commit') await commit(settings, command.message);
  else if (command.type === 'uncommit') await uncommit(settings);
  else await reset(settings);
}

parentPort?.on('message', async (/** @type {WorkflowCommand} */ command) => {
  Object.assign(current, { target: null, failed: null, lost: undefined, unchanged: false });
  try {
    await execute(command);
    post({ type: 'done', unchanged: current.unchanged });
  } catch (error) {
    const { target, failed, lost } = current;
    post({ type: 'failed', error: serialize(lost ?? error), target, failed });
  } finally {
    // Else the library keeps its pools for another 200 ms, in which nobody can drop the database.
    clearAllPools();
  }
});
