import { DatabaseAheadError, HistoryDivergedError, type HistoryProblem } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { typedCommand } from '../package-root.ts';
import { compareNames, count, listFiles, paragraph } from '../text.ts';

/** A recorded migration: a row of graphile_migrate.migrations. */
export interface AppliedMigration {
  /** As graphile-migrate records it, such as `000001.sql`: only the number of the file's name. */
  readonly filename: string;
  readonly hash: string;
  /** Hash of the migration before it; null for the first. */
  readonly previousHash: string | null;
  readonly appliedAt: Date;
}

/** The result of comparing the files with the history. */
export type MigrationPlan =
  | { readonly state: 'empty' | 'pending'; readonly pending: readonly CommittedMigration[] }
  | { readonly state: 'current' }
  | { readonly state: 'ahead'; readonly unknown: readonly AppliedMigration[] }
  | { readonly state: 'diverged'; readonly problems: readonly HistoryProblem[] };

/**
 * `empty`: nothing applied; `pending`: some to apply; `current`: nothing to do; `ahead`: a later version of
 * the package migrated the database; `diverged`: other files were applied.
 */
export type MigrationState = MigrationPlan['state'];

/** A database in words, and its plan. */
interface Planned {
  readonly where: string;
  readonly plan: MigrationPlan;
}

/** Compares the files with the recorded history, row by row. Changes nothing. */
export function planMigrations(
  committed: readonly CommittedMigration[],
  applied: readonly AppliedMigration[],
): MigrationPlan {
  if (applied.length === 0) return { state: 'empty', pending: committed };
  const rows = [...applied].sort((a, b) => compareNames(a.filename, b.filename));
  const later = rowsOfLaterVersion(committed, rows);
  if (later.length > 0) return { state: 'ahead', unknown: later };
  const problems = findProblems(committed, rows);
  if (problems.length > 0) return { state: 'diverged', problems };
  if (rows.length < committed.length) return { state: 'pending', pending: committed.slice(rows.length) };
  return { state: 'current' };
}

/**
 * The pending migrations of a database.
 * @throws {HistoryDivergedError | DatabaseAheadError} unless the files begin with the recorded history.
 */
export function pendingIn({ plan, where }: Planned): readonly CommittedMigration[] {
  refuseDiverged({ plan, where });
  if (plan.state === 'ahead') {
    const unknown = plan.unknown.map(({ filename }) => filename);
    const message = paragraph(
      `A later version of this package has migrated ${where}: ${unknown.join(', ')}`,
      `${unknown.length === 1 ? 'is' : 'are'} not among the files. Nothing was changed.`,
      'Deploy that version, or pass --allow-ahead to keep an older version running.',
    );
    throw new DatabaseAheadError(message, unknown);
  }
  return plan.state === 'empty' || plan.state === 'pending' ? plan.pending : [];
}

/** @throws {HistoryDivergedError} when other files than these were applied. */
export function refuseDiverged({ plan, where }: Planned): void {
  if (plan.state !== 'diverged') return;
  const list = plan.problems.map(({ description }) => description).join('; ');
  const remedies = new Set(plan.problems.map(({ remedy }) => remedy));
  const message = paragraph(
    `The migrations in ${where} are not the ones of this package: ${list}. Nothing was changed.`,
    ...remedies,
  );
  throw new HistoryDivergedError(message, plan.problems);
}

/** One line for each problem of a history, with what to do. */
export function problemsOf(plan: MigrationPlan): readonly string[] {
  if (plan.state === 'diverged') {
    return plan.problems.map(({ description, remedy }) => `${description}. ${remedy}`);
  }
  if (plan.state !== 'ahead') return [];
  const what = 'is not among the files: a later version of this package applied it. Deploy that version.';
  return plan.unknown.map(({ filename }) => `${filename} ${what}`);
}

/** Why the schema cannot be compared: the model describes only the state after the last migration. */
export function whyNotComparable(plan: MigrationPlan): string | undefined {
  const names = (files: readonly { readonly filename: string }[]) =>
    listFiles(files.map(({ filename }) => filename));
  if (plan.state === 'empty' || plan.state === 'pending') {
    const { pending } = plan;
    return paragraph(
      `It lacks ${count(pending.length, 'migration')} (${names(pending)}).`,
      `Apply them first: ${typedCommand('migrate')}.`,
    );
  }
  if (plan.state !== 'ahead') return undefined;
  return paragraph(
    `A later version of this package has migrated it (${names(plan.unknown)}).`,
    'Compare it with that version.',
  );
}

/** The rows after those of all files. Empty unless each of them continues the chain. */
function rowsOfLaterVersion(
  committed: readonly CommittedMigration[],
  rows: readonly AppliedMigration[],
): readonly AppliedMigration[] {
  const known = committed.every((file, index) => isSame(file, rows[index]));
  const rest = rows.slice(committed.length);
  const chained = rest.every((row, index) => row.previousHash === rows[committed.length + index - 1]?.hash);
  return known && chained ? rest : [];
}

function findProblems(
  committed: readonly CommittedMigration[],
  rows: readonly AppliedMigration[],
): readonly HistoryProblem[] {
  const byHash = new Map(committed.map((file) => [file.hash, file]));
  const byName = new Map(committed.map((file) => [file.recordedName, file]));
  if (!rows.some(({ hash }) => byHash.has(hash))) {
    const names = rows.map(({ filename, hash }) => `${filename} (${hash})`).join(', ');
    const description = paragraph(
      `it has only migrations of another package: ${names}.`,
      `This package begins with ${committed[0]?.filename}`,
    );
    const remedy =
      'Check whether this is the right database: two packages that use graphile-migrate cannot share one.';
    return [{ code: 'HISTORY_FOREIGN', description, remedy }];
  }
  const lastKnown = rows.findLastIndex(({ hash }) => byHash.has(hash));
  const recorded = new Set(rows.slice(0, lastKnown + 1).map(({ hash }) => hash));
  const expected = committed.slice(0, committed.findLastIndex(({ hash }) => recorded.has(hash)) + 1);
  const problems = rows.flatMap((row) => describeRow(row, byHash.get(row.hash), byName.get(row.filename)));
  const named = new Set(rows.map(({ filename }) => filename));
  for (const file of expected) {
    if (recorded.has(file.hash) || named.has(file.recordedName)) continue;
    problems.push({
      code: 'HISTORY_ROW_MISSING',
      description: `${file.filename} is not recorded as applied, but later ones are`,
      remedy: `If its objects exist, record it: ${recordingOf(file)}`,
    });
  }
  return problems;
}

function describeRow(
  { filename, hash }: AppliedMigration,
  sameHash: CommittedMigration | undefined,
  sameName: CommittedMigration | undefined,
): HistoryProblem[] {
  if (sameHash?.recordedName === filename) return [];
  if (sameHash !== undefined) {
    const description = `${sameHash.filename} was applied under another number, as ${filename}`;
    const remedy =
      'Rename the file to that number, or deploy the version of the package that migrated the database.';
    return [{ code: 'HISTORY_RENUMBERED', description, remedy }];
  }
  if (sameName !== undefined) {
    const description = paragraph(
      `${sameName.filename} was applied with other content:`,
      `the database has ${hash}, the file ${sameName.hash}`,
    );
    const remedy =
      'Check whether this is the right database, or deploy the version of the package that migrated it.';
    return [{ code: 'HISTORY_REWRITTEN', description, remedy }];
  }
  const description = paragraph(
    `the database has ${filename} (${hash}),`,
    'which is not among the files and does not continue them',
  );
  const remedy = paragraph(
    'Deploy the version of the package that applied it;',
    'if someone added the row by hand, delete it from graphile_migrate.migrations.',
  );
  return [{ code: 'HISTORY_ROW_UNKNOWN', description, remedy }];
}

/** The statement that records a migration as graphile-migrate would. Hashes and names contain no quotes. */
function recordingOf({ recordedName, hash, previousHash }: CommittedMigration): string {
  const previous = previousHash === null ? 'null' : `'${previousHash}'`;
  const values = `'${recordedName}', '${hash}', ${previous}`;
  return `insert into graphile_migrate.migrations (filename, hash, previous_hash) values (${values});`;
}

function isSame(file: CommittedMigration, row: AppliedMigration | undefined): boolean {
  return row?.filename === file.recordedName && row.hash === file.hash;
}
