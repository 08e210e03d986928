import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MigrationsInvalidError, MigrationsMissingError } from '../errors.ts';

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
  | { readonly state: 'diverged'; readonly problems: readonly string[] };

// The three rules below are graphile-migrate's: dist/migrationFilename.js, dist/migration.js
// (parseMigrationText) and dist/hash.js. They stand here again because loading the library takes
// longer than everything else that a deploy with nothing to do does; a test holds them together.
const FILENAME = /^([0-9]+)(-[-_a-zA-Z0-9]*)?\.sql$/;
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
  const problems = committed
    .slice(0, rows.length)
    .flatMap((file, index) => describeDifference(file, rows[index]));
  if (problems.length > 0) return { state: 'diverged', problems };
  if (rows.length > committed.length) return { state: 'ahead', unknown: rows.slice(committed.length) };
  if (rows.length < committed.length) return { state: 'pending', pending: committed.slice(rows.length) };
  return { state: 'current' };
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
  const fail = (why: string): never => {
    throw new MigrationsInvalidError(`Migration ${filename} ${why}`, filename);
  };
  if (text.includes('\r\n')) {
    fail(
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
      'has no proper header (--! Previous, --! Hash, an empty line). Restore it from version control.',
    );
  }
  if (headers.has('AllowInvalidHash')) fail('allows an invalid hash, which this package does not.');

  const previousHash = previous === '-' ? null : previous;
  const afterHeader = lines.slice(headers.size).join('\n');
  const body = `${afterHeader.trim()}\n`;
  if (hashOf(body, previousHash) !== hash) {
    fail(
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
    linesBeforeBody: headers.size + blankLines,
  };
}

function proveChain(migrations: readonly CommittedMigration[]): void {
  migrations.forEach((migration, index) => {
    const before = migrations[index - 1];
    if (before?.recordedName === migration.recordedName) {
      throw new MigrationsInvalidError(
        `Migrations ${before.filename} and ${migration.filename} have the same number. Uncommit the later one and commit it again.`,
        migration.filename,
      );
    }
    if (migration.previousHash !== (before?.hash ?? null)) {
      throw new MigrationsInvalidError(
        `Migration ${migration.filename} does not follow ${before?.filename ?? 'the start'}: the one before it is missing, renumbered or rewritten. Restore the folder from version control.`,
        migration.filename,
      );
    }
  });
}

function describeDifference(file: CommittedMigration, row: AppliedMigration | undefined): readonly string[] {
  if (row === undefined || (row.filename === file.recordedName && row.hash === file.hash)) return [];
  if (row.hash === file.hash)
    return [`${file.filename} was applied under another number, as ${row.filename}`];
  if (row.filename === file.recordedName) {
    return [
      `${file.filename} was applied with other content: the database has ${row.hash}, the file ${file.hash}`,
    ];
  }
  return [`where ${file.filename} should be, the database has ${row.filename} (${row.hash})`];
}

function compareNames(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
