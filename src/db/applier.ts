import type { SerializedError, ThreadEvent, ThreadFailure } from '../graphile/protocol.ts';
import { isLockedOut, startThread } from '../graphile/thread.ts';
import { type ConnectionSettings, clientConfig, type MigrationSettings } from '../settings/settings.ts';
import { LONG_SESSION } from './session.ts';

/** Events of {@link Applier.run}. */
export type ApplyEvent =
  | { readonly type: 'migration-start'; readonly filename: string }
  | { readonly type: 'migration-end'; readonly filename: string; readonly durationMs: number }
  /** The server warned, in its words. */
  | { readonly type: 'warning'; readonly message: string };

export interface ApplyFailure {
  readonly type: 'failed';
  readonly error: SerializedError;
  /** The migration that was running, if one was. */
  readonly filename: string | null;
  /** Number of the failed statement, from 1; null if it was not a statement of the migration. */
  readonly statement: number | null;
}

/** How applying ended. */
export type ApplyOutcome =
  | { readonly type: 'done' }
  | ApplyFailure
  /** graphile-migrate found its own lock taken. Nothing was done. */
  | { readonly type: 'locked-out' };

/** graphile-migrate's `migrate` in a thread, which loads in parallel to the caller. */
export interface Applier {
  /** Applies the pending migrations. Returns failures of the thread and never throws them. */
  run(options: {
    readonly makeBookkeeping: boolean;
    /** Names of the files that run without lock and statement timeout. */
    readonly unlimited: readonly string[];
    readonly onEvent: (event: ApplyEvent) => void;
  }): Promise<ApplyOutcome>;
  /** Process id of its session on the server, once it has one. */
  pid(): number | undefined;
  hasEnded(): boolean;
  /** Prevents further migrations. The current statement continues until it is cancelled on the server. */
  stop(): void;
  /** Ends the thread at once. */
  end(): Promise<void>;
}

export interface ApplierOptions {
  readonly connection: ConnectionSettings;
  readonly settings: MigrationSettings;
  readonly migrationsFolder: string;
  readonly configFile: string;
}

/** Starts the thread. */
export function startApplier({
  connection,
  settings,
  migrationsFolder,
  configFile,
}: ApplierOptions): Applier {
  const main = clientConfig(connection);
  const { run, ...thread } = startThread({
    connections: { main },
    owner: connection.user ?? connection.database,
    configFile,
    serverSettings: serverSettings(settings),
    clearSession: settings.pooler === 'session',
    preload: ['migrate'],
    single: true,
  });
  let pid: number | undefined;
  return {
    ...thread,
    async run({ onEvent, ...options }) {
      const outcome = await run({ type: 'migrate', migrationsFolder, ...options }, (event) => {
        if (event.type === 'connected') pid = event.pid;
        for (const told of translate(event)) onEvent(told);
      });
      if (isLockedOut(outcome)) return { type: 'locked-out' };
      return outcome.type === 'done' ? { type: 'done' } : failureOf(outcome);
    },
    pid: () => pid,
  };
}

/** Settings of the session that migrates. They override the defaults of role and database. */
function serverSettings(settings: MigrationSettings): Readonly<Record<string, string>> {
  return {
    lock_timeout: String(settings.lockTimeoutMs),
    statement_timeout: String(settings.statementTimeoutMs),
    idle_in_transaction_session_timeout: '0',
    ...LONG_SESSION,
    default_transaction_isolation: 'read committed',
    // Without this, the server process would continue and hold its locks after this process was killed.
    client_connection_check_interval: '500',
  };
}

function translate(event: ThreadEvent): readonly ApplyEvent[] {
  if (event.type === 'warning') return [event];
  if (event.type !== 'start' && event.type !== 'end') return [];
  const filename = event.target.committed ?? '';
  if (event.type === 'start') return [{ type: 'migration-start', filename }];
  return [{ type: 'migration-end', filename, durationMs: event.durationMs }];
}

function failureOf({ error, target, failed }: ThreadFailure): ApplyFailure {
  return {
    type: 'failed',
    error,
    filename: target?.committed ?? null,
    statement: failed?.statement ?? null,
  };
}
