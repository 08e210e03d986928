import { Worker } from 'node:worker_threads';
import { type ConnectionSettings, clientConfig, type MigrationSettings } from '../../settings.ts';
import { LONG_SESSION } from '../session.ts';
import type { WorkerCommand, WorkerFailure, WorkerInput, WorkerMessage } from './messages.ts';
import { endedWithoutAWord, isLockedOut, withoutFields } from './thread.ts';

/** What {@link Applier.run} tells while it works. */
export type ApplyEvent = Extract<
  WorkerMessage,
  { readonly type: 'migration-start' | 'migration-end' | 'warning' }
>;

/** How applying ended. */
export type ApplyOutcome =
  | { readonly type: 'done' }
  | WorkerFailure
  /** graphile-migrate found its own lock taken. Nothing was done. */
  | { readonly type: 'locked-out' };

/** graphile-migrate in a thread of its own, loading while the host does other things. */
export interface Applier {
  /** Applies what the database does not have yet. Never throws for what goes wrong in there. */
  run(options: {
    readonly makeBookkeeping: boolean;
    /** Names of the files that run without lock and statement timeout. */
    readonly unlimited: readonly string[];
    readonly onEvent: (event: ApplyEvent) => void;
  }): Promise<ApplyOutcome>;
  /** Process id of its session on the server, once it has one. */
  pid(): number | undefined;
  hasEnded(): boolean;
  /** Tells it to begin nothing more. What is under way goes on until it is cancelled on the server. */
  stop(): void;
  /** Ends the thread, whatever it does. */
  end(): Promise<void>;
}

export interface ApplierOptions {
  readonly connection: ConnectionSettings;
  readonly settings: MigrationSettings;
  readonly migrationsFolder: string;
  readonly configFile: string;
}

/** Starts the thread. */
export function startApplier(options: ApplierOptions): Applier {
  const input: WorkerInput = {
    clientConfig: clientConfig(options.connection),
    migrationsFolder: options.migrationsFolder,
    configFile: options.configFile,
    serverSettings: serverSettings(options.settings),
    clearSession: options.settings.pooler === 'session',
  };
  // Without the host's loader options (--import tsx), which a plain .mjs file does not need.
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: input, execArgv: [] });
  const state = { pid: undefined as number | undefined, ended: false, report: (_: ApplyEvent) => {} };
  const tell = (command: WorkerCommand) => worker.postMessage(command);
  const outcome = new Promise<ApplyOutcome>((resolve) => {
    let told: { readonly type: 'done' } | WorkerFailure | undefined;
    let crash: Error | undefined;
    worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'connected') state.pid = message.pid;
      else if (message.type === 'done' || message.type === 'failed') told = message;
      else state.report(message);
    });
    worker.on('error', (error) => {
      crash = error;
    });
    worker.on('exit', (code) => {
      state.ended = true;
      resolve(interpret(told ?? failureOf(code, crash)));
    });
  });
  return {
    run({ onEvent, ...go }) {
      state.report = onEvent;
      tell({ type: 'go', ...go });
      return outcome;
    },
    pid: () => state.pid,
    hasEnded: () => state.ended,
    stop: () => tell({ type: 'stop' }),
    async end() {
      await worker.terminate();
    },
  };
}

/** Settings of the session that migrates; whatever the role's or the database's defaults are. */
function serverSettings(settings: MigrationSettings): Readonly<Record<string, string>> {
  return {
    lock_timeout: String(settings.lockTimeoutMs),
    statement_timeout: String(settings.statementTimeoutMs),
    idle_in_transaction_session_timeout: '0',
    ...LONG_SESSION,
    default_transaction_isolation: 'read committed',
    // Else a server process goes on, and holds its locks, though this one was killed.
    client_connection_check_interval: '500',
  };
}

function interpret(told: { readonly type: 'done' } | WorkerFailure): ApplyOutcome {
  return told.type === 'failed' && isLockedOut(told.error) ? { type: 'locked-out' } : told;
}

function failureOf(exitCode: number, crash: Error | undefined): WorkerFailure {
  const error = crash === undefined ? endedWithoutAWord(exitCode) : withoutFields(crash.message);
  return { type: 'failed', error, filename: null, statement: null };
}
