import type pg from 'pg';
import { sqlStateOf } from '../cause-codes.ts';
import { MigrationCheckFailedError, MigrationsInvalidError } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { type DataCheck, readDataChecks } from '../graphile/data-check-text.ts';
import { isConnectionLoss } from '../session/connection-error.ts';
import type { Queryable } from '../session/session.ts';
import { RUN_SETTINGS } from '../settings/server-settings.ts';
import { sendUntilLifted, settingStatement } from '../settings/setting-statement.mjs';
import { placeAt } from '../sql-text.ts';
import { asSentence, capitalized, count, paragraph, printable, seconds } from '../text.ts';
import type { Run } from './run-state.ts';

/** What a check returned. */
interface CheckOutcome {
  /** `not possible`: it uses an object that does not exist, such as one that an earlier migration creates. */
  readonly state: 'passed' | 'failed' | 'not possible';
  /** Why it could not be evaluated, after the words "the check"; null if it returned true or false. */
  readonly reason: string | null;
}

/** A check of a pending migration, evaluated before any of them is applied. */
export interface EvaluatedCheck {
  /** The migration's text for a failure: what is wrong with the data, and what to do. */
  readonly message: string;
  /** Line of the message in the file, from 1. */
  readonly line: number;
  /** `later`: it is evaluated after an earlier pending migration, which may create what it needs. */
  readonly state: 'passed' | 'failed' | 'later';
  /** Why it could not be evaluated; null if it returned true or false. */
  readonly reason: string | null;
}

/** A migration that a run would apply. */
export interface PendingMigration {
  readonly filename: string;
  readonly message: string | null;
  /** The SQL that would be sent to the server. */
  readonly sql: string;
  /** False for one that begins with `--! no-transaction`. */
  readonly transaction: boolean;
  /** Its checks of the data, in the order of the file. */
  readonly checks: readonly EvaluatedCheck[];
}

/** SQLSTATEs of missing tables, columns, functions, types and schemas (PostgreSQL manual, appendix A). */
const MISSING = /^(42P01|42703|42883|42704|3F000)$/;
const BOOLEAN_OID = 16;

/**
 * Evaluates the data checks of the pending migrations of a run. Reads only.
 * @throws {MigrationCheckFailedError} a check did not return true, unless it is a dry run.
 * @throws {MigrationsInvalidError} `MIGRATION_MALFORMED`: a migration has an invalid check.
 */
export async function evaluatePending(
  { settings, dryRun, database, progress }: Run,
  session: Queryable,
  pending: readonly CommittedMigration[],
): Promise<readonly PendingMigration[]> {
  const checksOf = pending.map(readProperChecks);
  const outcomes = (await evaluateDataChecks(session, checksOf.flat(), settings.checkTimeoutMs)).values();
  const evaluated = pending.map(({ filename, message, body, transaction }, index) => ({
    filename,
    message,
    sql: body,
    transaction,
    checks: (checksOf[index] ?? []).map(({ message, line }): EvaluatedCheck => {
      const { state = 'failed', reason = null } = outcomes.next().value ?? {};
      // No earlier migration can create an object that the first one lacks.
      const ofMissing = index === 0 ? 'failed' : 'later';
      return { message, line, state: state === 'not possible' ? ofMissing : state, reason };
    }),
  }));
  const failure = dryRun ? undefined : failureOfChecks(database.where, evaluated, progress.applied);
  if (failure !== undefined) throw failure;
  return evaluated;
}

/** The number of migrations before the first one whose checks cannot be evaluated yet. */
export function countReady(pending: readonly PendingMigration[]): number {
  const later = pending.findIndex(({ checks }) => checks.some(({ state }) => state === 'later'));
  return later === -1 ? pending.length : later;
}

function readProperChecks({ filename, body, linesBeforeBody }: CommittedMigration): readonly DataCheck[] {
  const { checks, problems } = readDataChecks(body, linesBeforeBody);
  const [problem] = problems;
  if (problem === undefined) return checks;
  const message = paragraph(
    `Migration ${filename} is malformed: line ${problem.line} ${problem.what}.`,
    `The package needs a new release. ${problem.remedy}`,
  );
  throw new MigrationsInvalidError('MIGRATION_MALFORMED', message, filename);
}

/** The error for the checks that failed; undefined if none did. */
export function failureOfChecks(
  where: string,
  pending: readonly PendingMigration[],
  applied: readonly string[],
): MigrationCheckFailedError | undefined {
  const failed = pending.flatMap(({ filename, checks }) =>
    checks
      .filter(({ state }) => state === 'failed')
      .map(({ line, message, reason }) => ({ filename, line, message, reason })),
  );
  if (failed.length === 0) return undefined;
  const sentences = failed.map(({ filename, line, message, reason }) => {
    const what = reason === null ? message : `the check "${message}" ${reason}`;
    return asSentence(`${filename}, line ${line}: ${what}`);
  });
  const text = paragraph(
    `${capitalized(where)} does not pass ${count(failed.length, 'check')} of its pending migrations.`,
    ...sentences,
    applied.length === 0 ? 'Nothing was applied.' : `Applied before: ${applied.join(', ')}.`,
    'Correct the data, and run this again; a check that is wrong itself needs a new release.',
  );
  return new MigrationCheckFailedError(text, failed, applied);
}

/**
 * Evaluates checks in one transaction that cannot write.
 * @param timeoutMs Of each check; 0: no limit.
 * @returns the outcome of each, in their order.
 */
export async function evaluateDataChecks(
  session: Queryable,
  checks: readonly DataCheck[],
  timeoutMs: number,
): Promise<readonly CheckOutcome[]> {
  if (checks.length === 0) return [];
  const outcomes: CheckOutcome[] = [];
  const settings = { ...RUN_SETTINGS, statement_timeout: String(timeoutMs) };
  const begin = `begin transaction isolation level read committed, read only;
${settingStatement(settings, { isLocal: true })}`;
  const rollback = () => session.query('rollback');
  await sendUntilLifted(() =>
    session.query(begin).catch((error) => rollback().then(() => Promise.reject(error))),
  );
  try {
    for (const check of checks) outcomes.push(await evaluate(session, check, timeoutMs));
  } finally {
    await rollback().catch(() => undefined);
  }
  return outcomes;
}

async function evaluate(session: Queryable, check: DataCheck, timeoutMs: number): Promise<CheckOutcome> {
  await session.query('savepoint before_check');
  const outcome = await session.query(check.sql).then(judge, (error) => {
    if (isConnectionLoss(error) || !(error instanceof Error)) throw error;
    return describeError(error, check, timeoutMs);
  });
  await session.query('rollback to savepoint before_check');
  return outcome;
}

function judge({ rows, fields }: pg.QueryResult): CheckOutcome {
  const [field, ...others] = fields;
  const failed = (reason: string | null) => ({ state: 'failed', reason }) as const;
  if (field === undefined || others.length > 0)
    return failed(`returned ${fields.length} columns instead of one`);
  if (rows.length !== 1) return failed(`returned ${rows.length} rows instead of one`);
  if (field.dataTypeID !== BOOLEAN_OID) return failed('returned something other than a boolean');
  const value: unknown = rows[0][field.name];
  if (value === null) return failed('returned null instead of true');
  return value === true ? { state: 'passed', reason: null } : failed(null);
}

function describeError(error: Error, check: DataCheck, timeoutMs: number): CheckOutcome {
  const code = sqlStateOf(error) ?? '';
  if (code === '57014') {
    const limit = ` or after ${seconds(timeoutMs)} (FILESTORE_MIGRATION_CHECK_TIMEOUT_MS)`;
    return { state: 'failed', reason: `was cancelled, by a user${timeoutMs === 0 ? '' : limit}` };
  }
  const { position } = error as Error & { readonly position?: string };
  const { line, column } = placeAt(check.sql, Number(position ?? Number.NaN));
  const at = position === undefined ? '' : ` at line ${check.line + line}, column ${column}`;
  const hint = code === '25006' ? ', and a check may only read' : '';
  const reason = `fails${at}: ${error.message}${code === '' ? '' : ` (SQLSTATE ${code})`}${hint}`;
  return { state: MISSING.test(code) ? 'not possible' : 'failed', reason: printable(reason) };
}
