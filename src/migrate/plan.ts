import { DatabaseAheadError, FilestoreError, HistoryDivergedError, type HistoryProblem } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { capitalized, compareNames, count, paragraph } from '../text.ts';

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

interface Writability {
  readonly where: string;
  readonly standby: boolean;
  readonly readOnly: boolean;
  readonly triggersDisabled: boolean;
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
    throw new DatabaseAheadError(
      paragraph(
        `A later version of this package has migrated ${where}:`,
        `${unknown.join(', ')} ${unknown.length === 1 ? 'is' : 'are'} not among the files.`,
        'Nothing was changed.',
        'Deploy that version, or pass --allow-ahead to keep an older version running.',
      ),
      unknown,
    );
  }
  return plan.state === 'empty' || plan.state === 'pending' ? plan.pending : [];
}

/** @throws {HistoryDivergedError} when other files than these were applied. */
export function refuseDiverged({ plan, where }: Planned): void {
  if (plan.state === 'diverged') {
    const list = plan.problems.map(({ description }) => description).join('; ');
    const remedies = new Set(plan.problems.map(({ remedy }) => remedy));
    throw new HistoryDivergedError(
      paragraph(
        `The migrations in ${where} are not the ones of this package: ${list}. Nothing was changed.`,
        `${[...remedies].join(' ')}`,
      ),
      plan.problems,
    );
  }
}

/** One line for each problem of a history, with what to do. */
export function problemsOf(plan: MigrationPlan): readonly string[] {
  if (plan.state === 'diverged') {
    return plan.problems.map(({ description, remedy }) => `${description}. ${remedy}`);
  }
  if (plan.state === 'ahead') {
    return plan.unknown.map(({ filename }) =>
      paragraph(
        `${filename} is not among the files: a later version of this package applied it.`,
        'Deploy that version.',
      ),
    );
  }
  return [];
}

/** Why the schema cannot be compared: the model describes only the state after the last migration. */
export function whyNotComparable(plan: MigrationPlan): string | undefined {
  if (plan.state === 'empty' || plan.state === 'pending') {
    return paragraph(
      `It lacks ${count(plan.pending.length, 'migration')}`,
      `(${plan.pending.map(({ filename }) => filename).join(', ')}).`,
      'Apply them first: npm run db:migrate:filestore.',
    );
  }
  if (plan.state === 'ahead') {
    return paragraph(
      'A later version of this package has migrated it',
      `(${plan.unknown.map(({ filename }) => filename).join(', ')}). Compare it with that version.`,
    );
  }
  return undefined;
}

/**
 * Refuses to write to a read-only database, or without triggers, which maintain history, totals and the
 * rights of roles.
 * @throws {FilestoreError} `DATABASE_READ_ONLY` or `TRIGGERS_DISABLED`.
 */
export function refuseUnwritable({ where, standby, readOnly, triggersDisabled }: Writability): void {
  if (standby) {
    throw new FilestoreError(
      'DATABASE_READ_ONLY',
      paragraph(
        `${capitalized(where)} is a read-only hot standby and lacks migrations.`,
        'Migrate its primary (FILESTORE_MIGRATION_DATABASE_URL); replication then copies them here.',
      ),
    );
  }
  if (readOnly) {
    throw new FilestoreError(
      'DATABASE_READ_ONLY',
      paragraph(
        `Sessions of this role in ${where} are read-only, and it lacks migrations.`,
        'Set default_transaction_read_only to off for the role that migrates.',
      ),
    );
  }
  if (triggersDisabled) {
    throw new FilestoreError(
      'TRIGGERS_DISABLED',
      paragraph(
        `Triggers do not fire in sessions of this role in ${where} (session_replication_role is "replica"),`,
        'and it lacks migrations. Nothing was changed. Let a superuser reset it:',
        'alter database … reset session_replication_role, or alter role … reset session_replication_role.',
      ),
    );
  }
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
    return [
      {
        code: 'HISTORY_FOREIGN',
        description: paragraph(
          `it has only migrations of another package: ${names}.`,
          `This package begins with ${committed[0]?.filename}`,
        ),
        remedy: paragraph(
          'Check whether this is the right database: two packages that use graphile-migrate',
          'cannot share one.',
        ),
      },
    ];
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
  row: AppliedMigration,
  sameHash: CommittedMigration | undefined,
  sameName: CommittedMigration | undefined,
): HistoryProblem[] {
  if (sameHash?.recordedName === row.filename) return [];
  if (sameHash !== undefined) {
    return [
      {
        code: 'HISTORY_RENUMBERED',
        description: `${sameHash.filename} was applied under another number, as ${row.filename}`,
        remedy:
          'Rename the file to that number, or deploy the version of the package that migrated the database.',
      },
    ];
  }
  if (sameName !== undefined) {
    return [
      {
        code: 'HISTORY_REWRITTEN',
        description: paragraph(
          `${sameName.filename} was applied with other content: the database has ${row.hash},`,
          `the file ${sameName.hash}`,
        ),
        remedy:
          'Check whether this is the right database, or deploy the version of the package that migrated it.',
      },
    ];
  }
  return [
    {
      code: 'HISTORY_ROW_UNKNOWN',
      description: paragraph(
        `the database has ${row.filename} (${row.hash}), which is not among the files and does not`,
        'continue them',
      ),
      remedy: paragraph(
        'Deploy the version of the package that applied it; if someone added the row by hand,',
        'delete it from graphile_migrate.migrations.',
      ),
    },
  ];
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
