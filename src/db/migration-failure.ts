import { MigrationFailedError, type MigrationFailurePlace } from '../errors.ts';
import { causeOf } from '../graphile/protocol.ts';
import { placeAt } from '../sql-text.ts';
import type { ApplyFailure } from './applier.ts';
import type { CommittedMigration } from './committed-migrations.ts';
import { isConnectionLoss } from './connection-error.ts';

/** What to do about a failure, by SQLSTATE (PostgreSQL manual, appendix A). */
const REMEDIES: Readonly<Record<string, string>> = {
  '25001':
    'A concurrent statement cannot run in a transaction. Write it as a separate migration with only this statement, which begins with "--! no-transaction".',
  '42501':
    'For the first run: grant create on database … to …. Later runs must be the owner of the schemas filestore and graphile_migrate.',
  '42P07':
    'An object of that name exists already. Compare it with the migration, and move it to another schema.',
  '53300':
    'A run needs two connections at once. Close some, or raise the limit of the server, the database or the role.',
  '53100': "The server's disk is full. Free space, then run this again.",
  '55P03':
    'Another transaction holds a lock on the table (select * from pg_stat_activity where xact_start is not null order by xact_start). Run this again when it has ended.',
  '40P01': 'It ran into a deadlock with another transaction. Run this again.',
  '57014':
    'The statement was cancelled, by a user or by a time limit (FILESTORE_MIGRATION_STATEMENT_TIMEOUT_MS). Raise the limit if it was that, then run this again.',
  '57P01': 'An administrator ended the session. Ask why, then run this again.',
  '25006': 'The server only allows reading (a standby?). Migrate its primary.',
};

/**
 * The error for a migration that failed: the file, the statement, the position, the server's words, what to do.
 * @param blockers The sessions that last blocked it, in words; empty if there were none.
 */
export function migrationFailure(
  failure: ApplyFailure,
  pending: readonly CommittedMigration[],
  applied: readonly string[],
  blockers: string,
): MigrationFailedError {
  const { error } = failure;
  const place = placeOf(failure, pending);
  const words = [
    place === null
      ? `The migrations could not be applied: ${error.message}`
      : `Migration ${place.filename} failed${describePlace(place)}: ${error.message}`,
    error.code === null ? '' : ` (SQLSTATE ${error.code})`,
    '.',
    error.detail === null ? '' : ` ${asSentence(error.detail)}`,
    error.hint === null ? '' : ` ${asSentence(error.hint)}`,
    error.where === null ? '' : ` At: ${error.where.split('\n')[0]}.`,
    blockers === '' ? '' : ` It waited for ${blockers}.`,
    ` ${describeRest(failure, pending, applied)}`,
    ` ${REMEDIES[error.code ?? ''] ?? 'Fix the cause and run this again; applied migrations are not run twice.'}`,
  ];
  return new MigrationFailedError(words.join(''), place, error.code, applied, { cause: causeOf(error) });
}

function placeOf(
  failure: ApplyFailure,
  pending: readonly CommittedMigration[],
): MigrationFailurePlace | null {
  const migration = pending.find(({ filename }) => filename === failure.filename);
  if (migration === undefined) return null;
  const { position } = failure.error;
  // A position refers to the text that was sent. Without a statement of the migration, that was another text.
  if (position === null || failure.statement === null) {
    return { filename: migration.filename, statement: failure.statement, line: null, column: null };
  }
  const { line, column } = placeAt(migration.body, position);
  return {
    filename: migration.filename,
    statement: failure.statement,
    line: migration.linesBeforeBody + line,
    column,
  };
}

function describePlace(place: MigrationFailurePlace): string {
  const statement = place.statement === null ? '' : ` at statement ${place.statement}`;
  return place.line === null ? statement : `${statement} (line ${place.line}, column ${place.column})`;
}

function describeRest(
  failure: ApplyFailure,
  pending: readonly CommittedMigration[],
  applied: readonly string[],
): string {
  const migration = pending.find(({ filename }) => filename === failure.filename);
  const before =
    applied.length === 0 ? 'Nothing was applied before it.' : `Applied before it: ${applied.join(', ')}.`;
  if (migration === undefined) return before;
  const fate = migration.transaction
    ? failure.statement === null && isConnectionLoss(causeOf(failure.error))
      ? 'It was rolled back, unless the server had committed it already: the next run checks.'
      : 'It was rolled back.'
    : 'It runs without a transaction; the next run removes an invalid index that it may have left.';
  return `${fate} ${before}`;
}

function asSentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
