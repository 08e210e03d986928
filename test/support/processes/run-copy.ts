import { join } from 'node:path';
import { connectionTo } from '../../../harness/connection.ts';
import type { PackageCopy } from '../../../harness/package-copy.ts';
import { readCommittedMigrations } from '../../../src/graphile/committed-migrations.ts';
import type { MigrationEvent } from '../../../src/index.ts';
import { migrateDatabase } from '../../../src/migrate/run.ts';
import { type MigrationReport, openRun } from '../../../src/migrate/run-state.ts';
import { databaseOf } from '../../../src/settings/database.ts';
import type { MigrationSettings } from '../../../src/settings/settings.ts';

/** A run of a copy's migrations in this process. */
export interface CopyRun {
  /** The events so far. */
  readonly events: readonly MigrationEvent[];
  /** Settles as the run does. */
  readonly ended: Promise<MigrationReport>;
}

export interface CopyRunOptions {
  readonly settings?: Partial<MigrationSettings>;
  readonly signal?: AbortSignal;
}

/**
 * Starts a run of a copy's migrations, and collects its events. The schema is not compared, since the copy has no model
 * of it.
 */
export function startRun(copy: PackageCopy, url: string, options: CopyRunOptions = {}): CopyRun {
  const events: MigrationEvent[] = [];
  const migrationsFolder = join(copy.folder, 'migrations');
  const start = async () => {
    const run = await openRun(
      { ...options, env: {}, compareSchema: false, onEvent: (event) => events.push(event) },
      {
        database: databaseOf(connectionTo(url)),
        committed: await readCommittedMigrations(migrationsFolder),
        migrationsFolder,
        configFile: join(copy.folder, '.gmrc'),
      },
    );
    return migrateDatabase(run);
  };
  const ended = start();
  // A test that awaits it later still gets the error.
  ended.catch(() => undefined);
  return { events, ended };
}

/** The events of one type. */
export function eventsOf<Type extends MigrationEvent['type']>(
  { events }: CopyRun,
  type: Type,
): readonly Extract<MigrationEvent, { readonly type: Type }>[] {
  return events.filter(
    (event): event is Extract<MigrationEvent, { readonly type: Type }> => event.type === type,
  );
}
