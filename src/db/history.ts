import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type HistoryProblem,
  type MigrationsInvalidCode,
  MigrationsInvalidError,
  MigrationsMissingError,
} from '../errors.ts';

/** A migration as its file in `migrations/committed` tells it. */
export interface CommittedMigration {
  /** Name of the file, such as `000001-mounts.sql`. */
  readonly filename: string;
  /** Name under which graphile-migrate records it: number only, such as `000001.sql`. */
  readonly recordedName: string;
  readonly message: string | null;
  readonly hash: string;
  /** Hash of the migration before it; null for the first. */
  readonly previousHash: string | null;
  /** The SQL as it is run and hashed: without the header. */
  readonly body: string;
  /** Whether it runs in a transaction: all do that do not begin with `--! no-transaction`. */
  readonly transaction: boolean;
  /** Number of lines in the file before the first of `body`. */
  readonly linesBeforeBody: number;
}

/** A migration as the database remembers it: a row of graphile_migrate.migrations. */
export interface AppliedMigration {
  readonly filename: string;
  readonly hash: string;
  readonly previousHash: string | null;
  readonly appliedAt: Date;
}

/** What the files and the database have to say about each other. */
export type MigrationPlan =
  | { readonly state: 'empty'; readonly pending: readonly CommittedMigration[] }
  | { readonly state: 'pending'; readonly pending: readonly CommittedMigration[] }
  | { readonly state: 'current' }
  | { readonly state: 'ahead'; readonly unknown: readonly AppliedMigration[] }
  | { readonly state: 'diverged'; readonly problems: readonly HistoryProblem[] };

// The rules below are graphile-migrate's: dist/migrationFilename.js, dist/header.js, dist/migration.js
// (parseMigrationText) and dist/hash.js. They stand here again because loading the library takes
// longer than everything else that a deploy with nothing to do does; a test holds them together.
const FILENAME = /^([0-9]+)(-[-_a-zA-Z0-9]*)?\.sql$/;
const NO_TRANSACTION = /^--!\s*no-transaction\b/;
const HEADER_LINE = /^--! ([A-Z][a-zA-Z0-9_]*)(?::(.*))?$/;

function hashOf(body: string, previousHash: string | null): string {
  const text = `${`${previousHash ?? ''}\n${body.trim()}`.trim()}\n`;
  return `sha1:${createHash('sha1').update(text).digest('hex')}`;
}

/**
 * Reads `migrations/committed` and proves its chain: every file unedited, each naming the one before.
 * @param migrationsFolder The folder that holds `committed`.
 * @returns the migrations in order; at least one.
 * @throws {MigrationsMissingError} there is none.
 * @throws {MigrationsInvalidError} that names the file at fault.
 */
export async function readCommittedMigrations(
  migrationsFolder: string,
): Promise<readonly CommittedMigration[]> {
  const folder = join(migrationsFolder, 'committed');
  const filenames = await listMigrationFiles(folder);
  const migrations = await Promise.all(
    filenames.map(async (filename) =>
      parseMigration(filename, await readFile(join(folder, filename), 'utf8')),
    ),
  );
  proveChain(migrations);
  return migrations;
}

/** Compares the files with what the database remembers, row by row. Reads and changes nothing. */
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

/** The rows after all of the files', when each of them continues the chain: none, unless they are that and no other. */
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
        description: `no migration it has is one of this package, whose first is ${committed[0]?.filename}: it has ${names}`,
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
      description: `${file.filename} is not recorded as applied, though later ones are`,
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
      },
    ];
  }
  if (sameName !== undefined) {
    return [
      {
        code: 'HISTORY_REWRITTEN',
        description: `${sameName.filename} was applied with other content: the database has ${row.hash}, the file ${sameName.hash}`,
      },
    ];
  }
  return [
    {
      code: 'HISTORY_ROW_UNKNOWN',
      description: `the database has ${row.filename} (${row.hash}), which is not among the files and does not continue them`,
    },
  ];
}

function isSame(file: CommittedMigration, row: AppliedMigration | undefined): boolean {
  return row?.filename === file.recordedName && row.hash === file.hash;
}

async function listMigrationFiles(folder: string): Promise<readonly string[]> {
  let entries: readonly string[];
  try {
    entries = await readdir(folder);
  } catch (cause) {
    throw new MigrationsMissingError(
      `The folder of committed migrations cannot be read: ${folder}. It is part of the package; install it again.`,
      { cause },
    );
  }
  const filenames = entries.filter((entry) => FILENAME.test(entry)).sort(compareNames);
  if (filenames.length === 0) {
    throw new MigrationsMissingError(
      `There is no committed migration in ${folder}. An empty folder is never what is meant: install the package again, or commit a migration first.`,
    );
  }
  return filenames;
}

function parseMigration(filename: string, text: string): CommittedMigration {
  const fail = (code: MigrationsInvalidCode, why: string): never => {
    throw new MigrationsInvalidError(code, `Migration ${filename} ${why}`, filename);
  };
  if (text.includes('\r\n')) {
    fail(
      'MIGRATION_CRLF',
      'has CRLF line ends, and its hash is over its bytes. Check it out again with LF (see .gitattributes).',
    );
  }
  const lines = text.split('\n');
  const headers = new Map<string, string>();
  for (const line of lines) {
    const match = HEADER_LINE.exec(line);
    if (match === null) break;
    headers.set(match[1] ?? '', (match[2] ?? '').trim());
  }
  const hash = headers.get('Hash');
  const previous = headers.get('Previous');
  if (hash === undefined || previous === undefined || lines[headers.size] !== '') {
    return fail(
      'MIGRATION_MALFORMED',
      'has no proper header (--! Previous, --! Hash, an empty line). Restore it from version control.',
    );
  }
  if (headers.has('AllowInvalidHash')) {
    fail('MIGRATION_MALFORMED', 'allows an invalid hash, which this package does not.');
  }

  const previousHash = previous === '-' ? null : previous;
  const afterHeader = lines.slice(headers.size).join('\n');
  const body = `${afterHeader.trim()}\n`;
  if (hashOf(body, previousHash) !== hash) {
    fail(
      'MIGRATION_EDITED',
      'was edited after it was committed: its hash does not match. Restore it from version control, and write the change as a new migration.',
    );
  }
  const blankLines =
    afterHeader.slice(0, afterHeader.length - afterHeader.trimStart().length).split('\n').length - 1;
  return {
    filename,
    recordedName: `${FILENAME.exec(filename)?.[1]}.sql`,
    message: headers.get('Message') ?? null,
    hash,
    previousHash,
    body,
    transaction: !NO_TRANSACTION.test(body),
    linesBeforeBody: headers.size + blankLines,
  };
}

function proveChain(migrations: readonly CommittedMigration[]): void {
  migrations.forEach((migration, index) => {
    const before = migrations[index - 1];
    if (before?.recordedName === migration.recordedName) {
      throw new MigrationsInvalidError(
        'MIGRATION_NUMBER_TAKEN',
        `Migrations ${before.filename} and ${migration.filename} have the same number. Uncommit the later one and commit it again.`,
        migration.filename,
      );
    }
    if (migration.previousHash !== (before?.hash ?? null)) {
      throw new MigrationsInvalidError(
        'MIGRATION_OUT_OF_CHAIN',
        `Migration ${migration.filename} does not follow ${before?.filename ?? 'the start'}: the one before it is missing, renumbered or rewritten. Restore the folder from version control.`,
        migration.filename,
      );
    }
  });
}

function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
