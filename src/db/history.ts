import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type MigrationsInvalidCode, MigrationsInvalidError, MigrationsMissingError } from '../errors.ts';
import { compareNames } from '../text.ts';

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
    filenames.map(async (filename) => parseMigration(filename, await readMigrationFile(folder, filename))),
  );
  proveChain(migrations);
  return migrations;
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

async function readMigrationFile(folder: string, filename: string): Promise<string> {
  try {
    return await readFile(join(folder, filename), 'utf8');
  } catch (cause) {
    throw new MigrationsInvalidError(
      'MIGRATION_MALFORMED',
      `Migration ${filename} cannot be read. It is part of the package; install it again, or restore it from version control.`,
      filename,
      { cause },
    );
  }
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
  const byHash = new Map(migrations.map((migration) => [migration.hash, migration]));
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
      throw describeBreak(migration, before, byHash.get(migration.previousHash ?? ''));
    }
  });
}

/**
 * Why a file does not follow the one before it.
 * @param follows The one that it follows by its header, when that is among the files.
 */
function describeBreak(
  { filename, recordedName, previousHash }: CommittedMigration,
  before: CommittedMigration | undefined,
  follows: CommittedMigration | undefined,
): MigrationsInvalidError {
  const restore = 'Restore the folder from version control, or install the package again.';
  if (follows !== undefined) {
    return new MigrationsInvalidError(
      'MIGRATION_OUT_OF_CHAIN',
      `Migration ${filename} follows ${follows.filename} by its header and ${before?.filename ?? 'the start'} by its number: one of them was renumbered, or comes from another branch. Give it its number back, or uncommit it and commit it again.`,
      filename,
    );
  }
  const number = Number.parseInt(recordedName, 10);
  const numberBefore = before === undefined ? 0 : Number.parseInt(before.recordedName, 10);
  if (previousHash !== null && number > numberBefore + 1) {
    const missing = String(number - 1).padStart(recordedName.length - '.sql'.length, '0');
    return new MigrationsInvalidError(
      'MIGRATION_FILE_MISSING',
      `Migration ${missing} is missing: ${filename} follows it, and ${before === undefined ? 'nothing' : before.filename} stands before that. ${restore}`,
      filename,
    );
  }
  return new MigrationsInvalidError(
    'MIGRATION_OUT_OF_CHAIN',
    `Migration ${filename} does not follow ${before?.filename ?? 'the start'}: one of them was rewritten. ${restore}`,
    filename,
  );
}
