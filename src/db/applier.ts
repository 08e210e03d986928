import { type GraphileThread, startThread } from '../graphile/thread.ts';
import { clientConfig, type MigrationSettings } from '../settings/settings.ts';
import type { Run } from './run-state.ts';
import { LONG_SESSION } from './session.ts';

/** Starts graphile-migrate's thread for one `migrate`. */
export function startApplier({ connection, settings, configFile }: Run): GraphileThread {
  return startThread({
    connections: { main: clientConfig(connection) },
    owner: connection.user ?? connection.database,
    configFile,
    serverSettings: serverSettings(settings),
    clearSession: settings.pooler === 'session',
    preload: ['migrate'],
    single: true,
  });
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
