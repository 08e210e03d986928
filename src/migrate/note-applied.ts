import { MigrationFailedError } from '../errors.ts';
import type { ThreadOutcome } from '../graphile/protocol.ts';
import type { Watch } from './blockers.ts';
import type { RunUnderWay, Surveyed } from './run-state.ts';

/** Counts a migration as applied, and reports it. */
export function noteApplied({ progress, emit }: RunUnderWay, filename: string, durationMs: number): void {
  progress.durations.set(filename, durationMs);
  emit({ type: 'migration-end', filename, durationMs });
}

/**
 * Notes migrations that the history records although the thread did not report their end, because the installed
 * graphile-migrate logs other words than src/graphile/library-words.mjs has.
 * @throws {MigrationFailedError} graphile-migrate ended without an error, and the history lacks one of them.
 */
export async function noteUnreported(
  { run, session, pending, found }: Surveyed,
  { sentAt }: Watch,
  outcome: ThreadOutcome,
): Promise<void> {
  if (sentAt.length === 0 || (outcome.type === 'failed' && !(await session.isAlive()))) return;
  const endedAt = performance.now();
  const { rows } = await session.query<{ hash: string }>('select hash from graphile_migrate.migrations');
  const recorded = new Set(rows.map(({ hash }) => hash));
  const open = pending
    .filter(({ filename }) => !run.progress.durations.has(filename))
    .slice(0, sentAt.length);
  // The server may have committed the failed migration. The next attempt or run notices that.
  const failing = outcome.type === 'failed' ? outcome.target?.committed : undefined;
  const unreported = open.filter(({ filename, hash }) => recorded.has(hash) && filename !== failing);
  for (const [index, { filename }] of unreported.entries()) {
    const startedAt = sentAt[index] ?? endedAt;
    const durationMs = (sentAt[index + 1] ?? endedAt) - startedAt;
    noteApplied(run, filename, durationMs);
    run.spans.endMigration(filename, startedAt, durationMs);
  }
  if (unreported.length > 0) {
    const message = `The installed graphile-migrate logs words that this package does not know. According to the history, it applied ${namesOf(unreported)}. Compare the installed version (npm ls graphile-migrate) with the one in package.json of this package.`;
    run.emit({ type: 'warning', message });
  }
  const missing = open.filter(({ hash }) => !recorded.has(hash));
  if (outcome.type === 'failed' || missing.length === 0) return;
  const { applied } = run.progress;
  throw new MigrationFailedError(
    `graphile-migrate ended without an error, but ${found.where} does not record ${namesOf(missing)}. Compare its installed version (npm ls graphile-migrate) with the one in package.json of this package, and run this again. Applied and kept: ${applied.length === 0 ? 'nothing' : applied.join(', ')}.`,
    null,
    null,
    applied,
  );
}

function namesOf(migrations: readonly { readonly filename: string }[]): string {
  return migrations.map(({ filename }) => filename).join(', ');
}
