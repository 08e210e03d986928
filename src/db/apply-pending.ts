import { readCommittedModel } from '../catalog/committed.ts';
import { type GraphileThread, startThread } from '../graphile/thread.ts';
import type { MigrationSettings } from '../settings/settings.ts';
import type { Run, Surveyed } from './run-state.ts';
import { LONG_SESSION } from './session.ts';

/** Applies what is pending, as the one migrator. */
export async function applyPending(surveyed: Surveyed): Promise<void> {
  const { run, session } = surveyed;
  // First of all: its thread loads graphile-migrate, which takes longer than all of the rest.
  const thread = startMigrateThread(run);
  try {
    const [{ lock }, { refuseConflicts }, { clearInvalidIndexes }, { apply }] = await Promise.all([
      import('./lock.ts'),
      import('./check-schema.ts'),
      import('./clear-indexes.ts'),
      import('./apply.ts'),
    ]);
    if (run.compareSchema) await readCommittedModel();
    const locked = await lock(surveyed);
    if (locked === undefined) return;
    if (locked.found.adopting) await refuseConflicts(session, run.committed);
    await clearInvalidIndexes(locked);
    await apply(locked, thread);
  } finally {
    await thread.end();
  }
}

function startMigrateThread({ database, settings, configFile }: Run): GraphileThread {
  const { config } = database;
  return startThread({
    connections: { main: config },
    owner: config.user ?? config.database,
    configFile,
    serverSettings: serverSettings(settings),
    clearSession: settings.pooler === 'session',
    preload: ['migrate'],
    single: true,
  });
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
