import type { SerializedError, ThreadEvent, ThreadFailure } from '../graphile/protocol.ts';
import { isLockedOut, startThread } from '../graphile/thread.ts';
import { type ConnectionSettings, clientConfig, type MigrationSettings } from '../settings/settings.ts';
import { LONG_SESSION } from './session.ts';

/** What {@link Applier.run} tells while it works. */
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
  /** Number of the statement at which the server stopped, from 1; null when it was not one of the migration's. */
  readonly statement: number | null;
}

/** How applying ended. */
export type ApplyOutcome =
  | { readonly type: 'done' }
  | ApplyFailure
  /** graphile-migrate found its own lock taken. Nothing was done. */
  | { readonly type: 'locked-out' };

/** graphile-migrate's `migrate` in a thread, loading while the host does other things. */
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
