import { readCommittedModel } from '../catalog/committed-model.ts';
import { type GraphileThread, startThread } from '../graphile/thread.ts';
import { RUN_SETTINGS } from '../settings/server-settings.ts';
import type { MigrationSettings } from '../settings/settings.ts';
import type { Run, Surveyed } from './run-state.ts';

/**
 * Applies the pending migrations under the lock, once their checks have passed. It applies them in several parts if a
 * check needs something that an earlier pending migration creates.
 */
export async function applyPending(surveyed: Surveyed): Promise<void> {
  const { run, session } = surveyed;
  // First, because the thread loads graphile-migrate, which takes longer than all other steps.
  let thread = startMigrateThread(run);
  try {
    const [{ lock }, { refuseConflicts }, { passChecks }, { clearInvalidIndexes }, { apply }] =
      await Promise.all([
        import('./migration-lock.ts'),
        import('../catalog/drift.ts'),
        import('./data-checks.ts'),
        import('./clear-indexes.ts'),
        import('./apply.ts'),
      ]);
    if (run.compareSchema) await readCommittedModel();
    run.spans.begin('lock');
    const locked = await lock(surveyed);
    run.spans.end();
    if (locked === undefined) return;
    if (locked.found.adopting) await refuseConflicts(session, run.committed);
    for (let rest = locked.pending; ; thread = startMigrateThread(run)) {
      run.spans.begin('checks');
      const ready = await passChecks({ ...locked, pending: rest });
      run.spans.end();
      rest = rest.slice(ready.length);
      const part = { ...locked, pending: ready };
      await clearInvalidIndexes(part);
      await apply(part, thread, rest[0]?.filename ?? null);
      if (rest.length === 0) return;
    }
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
    ...RUN_SETTINGS,
    lock_timeout: String(settings.lockTimeoutMs),
    statement_timeout: String(settings.statementTimeoutMs),
  };
}
