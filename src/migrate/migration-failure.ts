import { sqlStateOf } from '../cause-codes.ts';
import { MigrationFailedError, type MigrationFailurePlace } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { causeOf, type ThreadFailure } from '../graphile/protocol.ts';
import { isConnectionLoss } from '../session/connection-error.ts';
import type { Queryable } from '../session/session.ts';
import { placeAt } from '../sql-text.ts';
import { asSentence, paragraph, printable } from '../text.ts';

/** What to do about a failure, by SQLSTATE (PostgreSQL manual, appendix A). */
const ADVICE: Readonly<Record<string, string>> = {
  '25001': paragraph(
    'This statement cannot run in a transaction.',
    'Write it as a separate migration with only this statement, which begins with "--! no-transaction".',
  ),
  '25006': 'The server is read-only. If it is a standby, migrate its primary.',
  '25P04': 'The migration took longer than its own transaction_timeout. Remove or raise it; a run sets none.',
  '2BP01': paragraph(
    'Another object uses what the migration drops or changes, such as a view of a report,',
    'or a temporary view or table (pg_temp_…).',
    'Drop that object, or end the session that has the temporary one. Then run this again.',
  ),
  '40P01': 'It was in a deadlock with another transaction. Run this again.',
  '42501': paragraph(
    'For the first run: grant create on database … to ….',
    'Later runs must be the owner of the schemas filestore and graphile_migrate.',
  ),
  '42P07': paragraph(
    'An object with that name already exists.',
    'Compare it with the migration, and move it to another schema.',
  ),
  '53100': "The server's disk is full. Free space, then run this again.",
  '53300': paragraph(
    'A run needs two connections at once.',
    'Close other connections, or raise the limit of the server, the database or the role.',
  ),
  '55P03': paragraph(
    'Another transaction locks the table, perhaps one that is open in a terminal',
    '(select * from pg_stat_activity where xact_start is not null order by xact_start).',
    'Run this again when that transaction has ended.',
  ),
  '57014': paragraph(
    'The statement was cancelled, by a user or by a time limit',
    '(FILESTORE_MIGRATION_STATEMENT_TIMEOUT_MS).',
    'If it was the limit, raise it. Then run this again.',
  ),
  '57P01': 'An administrator ended the session. Ask why, then run this again.',
};

/** What to do about an error of the server; undefined if its code says nothing about that. */
export function adviceFor(sqlState: string | null): string | undefined {
  return ADVICE[sqlState ?? ''];
}

/** What to do if the role has no rights on what it creates; undefined if that is not the cause. */
export async function defaultPrivilegesRemedy(session: Queryable): Promise<string | undefined> {
  const { rows } = await session.query<{ statements: string | null }>(`
    select pg_catalog.string_agg(pg_catalog.format(
      'alter default privileges for role %1$I grant all on %2$s to %1$I', current_user,
      case d.defaclobjtype
        when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types'
        else 'schemas'
      end), '; ') as statements
    from pg_catalog.pg_default_acl d
    where d.defaclrole = current_user::pg_catalog.regrole and d.defaclnamespace = 0
      and d.defaclrole <> all (array(select x.grantee from pg_catalog.aclexplode(d.defaclacl) x))`);
  const statements = rows[0]?.statements;
  if (statements == null) return undefined;
  const problem = 'The default privileges of this role take away its rights on what it creates.';
  return `${problem} Restore them: ${statements}.`;
}

/**
 * The error for a failed migration: file, statement, position, the server's message, and what to do.
 * @param blockers The sessions that last blocked it, in words; empty if there were none.
 * @param remedy What to do. Default: as the SQLSTATE says.
 */
export function migrationFailedError(
  failure: ThreadFailure,
  migration: CommittedMigration | undefined,
  applied: readonly string[],
  blockers: string,
  remedy?: string,
): MigrationFailedError {
  const { error } = failure;
  const cause = causeOf(error);
  const sqlState = sqlStateOf(cause);
  const place = migration === undefined ? null : placeOf(failure, migration);
  const otherwise = 'Fix the cause and run this again; applied migrations are not run twice.';
  const state = sqlState === null ? '' : ` (SQLSTATE ${sqlState})`;
  const message = paragraph(
    place === null
      ? `The migrations could not be applied: ${error.message}${state}.`
      : `Migration ${place.filename} failed${describePlace(place)}: ${error.message}${state}.`,
    error.detail !== null && asSentence(error.detail),
    error.hint !== null && asSentence(error.hint),
    error.where !== null && `At: ${error.where.split('\n')[0]}.`,
    blockers !== '' && `It waited for ${blockers}.`,
    describeRest(failure, migration, applied),
    remedy ?? adviceFor(sqlState) ?? otherwise,
  );
  return new MigrationFailedError(printable(message), place, sqlState, applied, { cause });
}

function placeOf({ error, failed }: ThreadFailure, migration: CommittedMigration): MigrationFailurePlace {
  const { filename, body, linesBeforeBody } = migration;
  const { position } = error;
  // A position refers to the text that was sent. Without a statement of the migration, that was another text.
  if (position === null || failed === null) {
    return { filename, statement: failed?.statement ?? null, line: null, column: null };
  }
  const { line, column } = placeAt(body, position);
  return { filename, statement: failed.statement, line: linesBeforeBody + line, column };
}

function describePlace(place: MigrationFailurePlace): string {
  const statement = place.statement === null ? '' : ` at statement ${place.statement}`;
  return place.line === null ? statement : `${statement} (line ${place.line}, column ${place.column})`;
}

function describeRest(
  { failed, error }: ThreadFailure,
  migration: CommittedMigration | undefined,
  applied: readonly string[],
): string {
  const before =
    applied.length === 0 ? 'Nothing was applied before it.' : `Applied before it: ${applied.join(', ')}.`;
  if (migration === undefined) return before;
  if (!migration.transaction) {
    const fate =
      'It runs without a transaction, so it may have left an invalid index, which the next run drops.';
    return `${fate} ${before}`;
  }
  const isUnknown = failed === null && isConnectionLoss(causeOf(error));
  const unless = isUnknown ? ', unless the server had already committed it. The next run checks that' : '';
  return `It was rolled back${unless}. ${before}`;
}
