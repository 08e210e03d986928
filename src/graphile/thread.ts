import { Worker } from 'node:worker_threads';
import { copyOf, type Database } from '../settings/database.ts';
import { RUN_SETTINGS } from '../settings/server-settings.ts';
import type { MigrationSettings } from '../settings/settings.ts';
import type {
  StopRequest,
  ThreadCommand,
  ThreadEvent,
  ThreadFailure,
  ThreadInput,
  ThreadMessage,
  ThreadOutcome,
} from './protocol.ts';

interface MigrateThreadInput {
  readonly database: Database;
  readonly settings: MigrationSettings;
  readonly configFile: string;
}

/** graphile-migrate in a thread, which loads in parallel to the caller. */
export interface GraphileThread {
  /** Runs one command after the other. Returns failures of the thread and never throws them. */
  run(command: ThreadCommand, onEvent: (event: ThreadEvent) => void): Promise<ThreadOutcome>;
  /** Server process of the session that was opened last. */
  pid(): number | undefined;
  hasEnded(): boolean;
  /** Prevents further commands. The current statement continues until it is cancelled on the server. */
  stop(): void;
  /** Ends the thread at once. */
  end(): Promise<void>;
}

/** Starts a thread that migrates a database once. Its settings override the defaults of role and database. */
export function startMigrateThread({ database, settings, configFile }: MigrateThreadInput): GraphileThread {
  const { config } = database;
  return startThread({
    connections: { main: copyOf(config) },
    owner: config.user ?? config.database,
    configFile,
    serverSettings: {
      ...RUN_SETTINGS,
      lock_timeout: String(settings.lockTimeoutMs),
      statement_timeout: String(settings.statementTimeoutMs),
    },
    clearSession: settings.pooler === 'session',
    preload: ['migrate'],
    single: true,
  });
}

/** Starts the thread. */
export function startThread(input: ThreadInput): GraphileThread {
  // Without the host's loader options (--import tsx), which a plain .mjs file does not need.
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: input, execArgv: [] });
  const tell = (message: ThreadCommand | StopRequest) => worker.postMessage(message);
  let finish = (_: ThreadOutcome): void => undefined;
  let report = (_: ThreadEvent): void => undefined;
  let told: ThreadOutcome | undefined;
  let lost: ThreadFailure | undefined;
  let crash: Error | undefined;
  let pid: number | undefined;
  /** The outcome with which the thread ended. */
  let last: ThreadOutcome | undefined;
  worker.on('message', (message: ThreadMessage) => {
    if (message.type === 'lost') lost ??= message.failure;
    else if (message.type === 'done' || message.type === 'failed') {
      told = message;
      // A thread for one command reports it when it ends: then its connections are closed.
      if (!input.single) finish(message);
    } else {
      if (message.type === 'connected') pid = message.pid;
      report(message);
    }
  });
  worker.on('error', (error) => {
    crash = error;
  });
  worker.on('exit', (code) => {
    last = told ?? lost ?? failureOfExit(code, crash);
    finish(last);
  });
  return {
    run(command, onEvent) {
      if (last !== undefined) return Promise.resolve(last);
      [told, lost] = [undefined, undefined];
      report = onEvent;
      tell(command);
      return new Promise((resolve) => {
        finish = resolve;
      });
    },
    pid: () => pid,
    hasEnded: () => last !== undefined,
    stop: () => tell({ type: 'stop' }),
    async end() {
      await worker.terminate();
    },
  };
}

/** Whether graphile-migrate did nothing because another migrator holds its lock. Only its message says so. */
export function isLockedOut(outcome: ThreadOutcome): boolean {
  return outcome.type === 'failed' && outcome.error.message === 'Failed to get exclusive lock';
}

function failureOfExit(exitCode: number, crash: Error | undefined): ThreadFailure {
  const message = crash?.message ?? `graphile-migrate ended its thread with exit code ${exitCode}`;
  const error = { message, code: null, detail: null, hint: null, where: null, position: null };
  return { type: 'failed', error, target: null, ranMs: 0, failed: null };
}
