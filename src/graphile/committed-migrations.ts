import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError, type MigrationsInvalidCode, MigrationsInvalidError } from '../errors.ts';
import { RESTORE_PACKAGE } from '../package-root.ts';
import { compareNames, paragraph } from '../text.ts';
import {
  hashOf,
  isMigrationFile,
  type MigrationText,
  parseMigrationText,
  recordedNameOf,
} from './migration-text.ts';

/** A migration, read from its file in `migrations/committed`. */
export interface CommittedMigration extends Pick<MigrationText, 'body' | 'transaction' | 'linesBeforeBody'> {
  /** Name of the file, such as `000001-mounts.sql`. */
  readonly filename: string;
  /** Name under which graphile-migrate records it: number only, such as `000001.sql`. */
  readonly recordedName: string;
  readonly message: string | null;
  readonly hash: string;
  /** Hash of the migration before it; null for the first. */
  readonly previousHash: string | null;
}

/**
 * Reads `migrations/committed` and checks its chain: every file is unedited and names the one before.
 * @param migrationsFolder The folder of `committed`.
 * @returns the migrations in order; at least one.
 * @throws {FilestoreError} `MIGRATIONS_MISSING`: there is none.
 * @throws {MigrationsInvalidError} that names the damaged file.
 */
export async function readCommittedMigrations(
  migrationsFolder: string,
): Promise<readonly CommittedMigration[]> {
  const migrations = await readMigrationFiles(migrationsFolder);
  proveChain(migrations);
  return migrations;
}

/**
 * Reads the same files and checks each of them, but not the chain, which a merge can break.
 * @throws {FilestoreError} as {@link readCommittedMigrations} does.
 */
export async function readMigrationFiles(migrationsFolder: string): Promise<readonly CommittedMigration[]> {
  const folder = join(migrationsFolder, 'committed');
  const filenames = await listMigrationFiles(folder);
  return Promise.all(
    filenames.map(async (filename) => parseMigration(filename, await readMigrationFile(folder, filename))),
  );
}

async function listMigrationFiles(folder: string): Promise<readonly string[]> {
  let entries: readonly string[];
  try {
    entries = await readdir(folder);
  } catch (cause) {
    throw new FilestoreError(
      'MIGRATIONS_MISSING',
      `The folder of committed migrations cannot be read: ${folder}. ${RESTORE_PACKAGE}`,
      { cause },
    );
  }
  const filenames = entries.filter(isMigrationFile).sort(compareNames);
  if (filenames.length === 0) {
    throw new FilestoreError(
      'MIGRATIONS_MISSING',
      paragraph(
        `There is no committed migration in ${folder}.`,
        `${RESTORE_PACKAGE} In a checkout, commit a migration first.`,
      ),
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
      paragraph(
        `Migration ${filename} cannot be read.`,
        'It is part of the package; install it again, or restore it from version control.',
      ),
      filename,
      { cause },
    );
  }
}

/** @throws {MigrationsInvalidError} when the file is damaged or edited. */
function parseMigration(filename: string, text: string): CommittedMigration {
  const fail = (code: MigrationsInvalidCode, why: string): never => {
    throw new MigrationsInvalidError(code, `Migration ${filename} ${why}`, filename);
  };
  if (text.includes('\r\n')) {
    fail(
      'MIGRATION_CRLF',
      'has CRLF line ends, so its hash does not match. Check it out again with LF (see .gitattributes).',
    );
  }
  const { headers, headerLines, body, linesBeforeBody, transaction } = parseMigrationText(text);
  const hash = headers.get('Hash');
  const previous = headers.get('Previous');
  const isProper = headers.size === headerLines && text.split('\n')[headerLines] === '';
  if (hash === undefined || previous === undefined || !isProper) {
    return fail(
      'MIGRATION_MALFORMED',
      'has no valid header (--! Previous, --! Hash, an empty line). Restore it from version control.',
    );
  }
  if (headers.has('AllowInvalidHash')) {
    fail('MIGRATION_MALFORMED', 'allows an invalid hash. Restore it from version control.');
  }

  const previousHash = previous === '-' ? null : previous;
  if (hashOf(body, previousHash) !== hash) {
    fail(
      'MIGRATION_EDITED',
      paragraph(
        'was edited after it was committed: its hash does not match.',
        'Restore it from version control, and write the change as a new migration.',
      ),
    );
  }
  return {
    filename,
    recordedName: recordedNameOf(filename),
    message: headers.get('Message') ?? null,
    hash,
    previousHash,
    body,
    transaction,
    linesBeforeBody,
  };
}

/** @throws {MigrationsInvalidError} that names the first file that does not follow the one before it. */
function proveChain(migrations: readonly CommittedMigration[]): void {
  const byHash = new Map(migrations.map((migration) => [migration.hash, migration]));
  migrations.forEach((migration, index) => {
    const before = migrations[index - 1];
    if (before?.recordedName === migration.recordedName) {
      throw new MigrationsInvalidError(
        'MIGRATION_NUMBER_TAKEN',
        paragraph(
          `Migrations ${before.filename} and ${migration.filename} have the same number:`,
          'two branches were merged. In a checkout, give yours the next number:',
          `npm run db:uncommit -- --migration <file>, then npm run db:commit.`,
        ),
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
 * @param follows The file that its header names, if it exists.
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
      paragraph(
        `Migration ${filename} follows ${follows.filename} by its header,`,
        `but ${before?.filename ?? 'the start'} by its number: one of them was renumbered,`,
        'or comes from another branch. Restore its number, or uncommit it and commit it again.',
      ),
      filename,
    );
  }
  const number = Number.parseInt(recordedName, 10);
  const numberBefore = before === undefined ? 0 : Number.parseInt(before.recordedName, 10);
  if (previousHash !== null && number > numberBefore + 1) {
    const missing = String(number - 1).padStart(recordedName.length - '.sql'.length, '0');
    return new MigrationsInvalidError(
      'MIGRATION_FILE_MISSING',
      paragraph(
        `Migration ${missing} is missing: ${filename} follows it,`,
        `and ${before === undefined ? 'no file' : before.filename} comes before it. ${restore}`,
      ),
      filename,
    );
  }
  return new MigrationsInvalidError(
    'MIGRATION_OUT_OF_CHAIN',
    paragraph(
      `Migration ${filename} does not follow ${before?.filename ?? 'the start'}:`,
      `one of them was rewritten. ${restore}`,
    ),
    filename,
  );
}
