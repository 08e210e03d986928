import { Worker } from 'node:worker_threads';
import type { SerializedError } from '../../src/db/graphile/messages.ts';
import { withSession } from '../../src/db/session.ts';
import { clientConfig } from '../../src/settings.ts';
import { type DatabaseKind, ownerOf, type WorkflowDatabases } from './databases.ts';
import { CONFIG_FILE } from './folders.ts';
import type {
  WorkflowCommand,
  WorkflowFailure,
  WorkflowInput,
  WorkflowMessage,
  WorkflowTarget,
} from './messages.ts';

/** How a command ended. */
export type WorkflowOutcome = Extract<WorkflowMessage, { readonly type: 'done' }> | WorkflowFailure;

/** graphile-migrate in a thread, ready for one command after the other. */
export interface Graphile {
  /** Never throws for what goes wrong in there. */
  run(command: WorkflowCommand, onRunning?: (target: WorkflowTarget) => void): Promise<WorkflowOutcome>;
  /** Cancels what the server does for it; the command under way then fails. */
  cancel(): Promise<void>;
  /** Ends the thread, whatever it does. */
  end(): Promise<void>;
}

/** What graphile-migrate says when its lock is taken (dist/pgReal.js). */
const LOCKED_OUT = 'Failed to get exclusive lock';

const SERVER_SETTINGS = {
  // A forgotten transaction in another terminal would hold up a save without a word.
  lock_timeout: '10000',
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  default_transaction_isolation: 'read committed',
  // Else a server process goes on, and holds its locks, though this one was killed.
  client_connection_check_interval: '500',
};

interface Thread {
  readonly worker: Worker;
  /** Sessions on the server, by database and process id. */
  readonly sessions: ReadonlyMap<string, { readonly database: DatabaseKind; readonly pid: number }>;
  hasEnded(): boolean;
  run(command: WorkflowCommand, onRunning: (target: WorkflowTarget) => void): Promise<WorkflowOutcome>;
}

/** Starts the thread, which loads the library meanwhile. One that ended by itself is started again when it is needed. */
export function startGraphile(databases: WorkflowDatabases): Graphile {
  let thread = startThread(databases);
  return {
    run(command, onRunning = () => undefined) {
      if (thread.hasEnded()) thread = startThread(databases);
      return thread.run(command, onRunning);
    },
    async cancel() {
      const sessions = [...thread.sessions.values()];
      await Promise.allSettled(sessions.map(({ database, pid }) => cancelSession(databases, database, pid)));
    },
    async end() {
      await thread.worker.terminate();
    },
  };
}

/** Whether it found another migrator at work, and did nothing. */
export function isLockedOut(outcome: WorkflowOutcome): boolean {
  return outcome.type === 'failed' && outcome.error.message === LOCKED_OUT;
}

function startThread(databases: WorkflowDatabases): Thread {
  const input: WorkflowInput = {
    connections: {
      main: clientConfig(databases.main),
      shadow: clientConfig(databases.shadow),
      root: clientConfig(databases.root),
    },
    owner: ownerOf(databases.main),
    configFile: CONFIG_FILE,
    serverSettings: SERVER_SETTINGS,
  };
  // Without the host's loader options (--import tsx), which a plain .mjs file does not need.
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: input, execArgv: [] });
  const sessions = new Map<string, { readonly database: DatabaseKind; readonly pid: number }>();
  let finish = (_: WorkflowOutcome): void => undefined;
  let tellRunning = (_: WorkflowTarget): void => undefined;
  let cause: SerializedError | undefined;
  let ended = false;
  worker.on('message', (message: WorkflowMessage) => {
    if (message.type === 'connected') sessions.set(`${message.database} ${message.pid}`, message);
    else if (message.type === 'disconnected') sessions.delete(`${message.database} ${message.pid}`);
    else if (message.type === 'running') tellRunning(message.target);
    else if (message.type === 'lost') cause ??= message.error;
    else finish(message);
  });
  worker.on('error', (error) => {
    cause ??= withoutFields(error.message);
  });
  worker.on('exit', (exitCode) => {
    ended = true;
    const error = cause ?? withoutFields(`graphile-migrate ended its thread with exit code ${exitCode}`);
    finish({ type: 'failed', error, target: null, failed: null });
  });
  return {
    worker,
    sessions,
    hasEnded: () => ended,
    run(command, onRunning) {
      tellRunning = onRunning;
      cause = undefined;
      return new Promise((resolve) => {
        finish = resolve;
        worker.postMessage(command);
      });
    },
  };
}

async function cancelSession(databases: WorkflowDatabases, kind: DatabaseKind, pid: number): Promise<void> {
  await withSession(databases[kind], (session) =>
    session.query(`select pg_catalog.pg_cancel_backend(${pid})`),
  );
}

function withoutFields(message: string): SerializedError {
  return { message, code: null, detail: null, hint: null, where: null, position: null };
}
