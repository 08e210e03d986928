import { Worker } from 'node:worker_threads';
import { LockNotAcquiredError, type MigrationFailedError } from '../../errors.ts';
import { type ConnectionSettings, describeConnection, poolConfig } from '../../settings.ts';
import type { CommittedMigration } from '../history.ts';
import { migrationFailure } from './failure.ts';
import type { WorkerInput, WorkerMessage } from './messages.ts';

/** What {@link applyMigrations} tells while it works. */
export type ApplyEvent = Extract<WorkerMessage, { readonly type: 'migration-start' | 'migration-end' }>;

export interface ApplyOptions {
  readonly connection: ConnectionSettings;
  readonly migrationsFolder: string;
  readonly configFile: string;
  /** The migrations to run, for naming the place of a failure. */
  readonly pending: readonly CommittedMigration[];
  readonly onEvent: (event: ApplyEvent) => void;
}

/**
 * Applies the pending migrations through graphile-migrate, in a thread of its own.
 * @throws {MigrationFailedError} with the file, statement and position at which the server stopped.
 * @throws {LockNotAcquiredError} when another migrator is at work.
 */
export async function applyMigrations(options: ApplyOptions): Promise<void> {
  const applied: string[] = [];
  const outcome = await runWorker(options, (event) => {
    if (event.type === 'migration-end') applied.push(event.filename);
    options.onEvent(event);
  });
  if (outcome.type === 'failed') throw errorOf(outcome, options, applied);
}

type Failure = Extract<WorkerMessage, { readonly type: 'failed' }>;

function errorOf(
  failure: Failure,
  options: ApplyOptions,
  applied: readonly string[],
): MigrationFailedError | LockNotAcquiredError {
  if (failure.error.message === 'Failed to get exclusive lock') {
    return new LockNotAcquiredError(
      `Another migrator is at work on ${describeConnection(options.connection)}. Wait until it is done and run this again; nothing is applied twice.`,
    );
  }
  return migrationFailure(failure, options.pending, applied);
}

function runWorker(
  options: ApplyOptions,
  onEvent: (event: ApplyEvent) => void,
): Promise<Failure | { readonly type: 'done' }> {
  const input: WorkerInput = {
    poolConfig: poolConfig(options.connection),
    migrationsFolder: options.migrationsFolder,
    configFile: options.configFile,
  };
  // Without the host's loader options (--import tsx), which a plain .mjs file does not need.
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: input, execArgv: [] });
  return new Promise((resolve, reject) => {
    let outcome: Failure | { readonly type: 'done' } | undefined;
    worker.on('message', (message: WorkerMessage) => {
      if (message.type === 'done' || message.type === 'failed') outcome = message;
      else onEvent(message);
    });
    worker.on('error', reject);
    worker.on('exit', (code) => {
      if (outcome !== undefined) resolve(outcome);
      else reject(new Error(`graphile-migrate's thread ended with code ${code} and said nothing`));
    });
  });
}
