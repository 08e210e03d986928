import { type CommittedMigration, parseMigration, proveChain } from '../../src/db/committed-migrations.ts';
import { FilestoreError } from '../../src/errors.ts';
import { hashOf, parseMigrationText } from '../../src/graphile/migration-text.ts';

/** A migration that gets another number or hash. */
export interface Renumbered {
  readonly before: CommittedMigration;
  readonly after: CommittedMigration;
  /** The new content of its file. */
  readonly text: string;
}

export interface Renumbering {
  /** The migrations that change, in order. */
  readonly changed: readonly Renumbered[];
  /** All migrations after the change, in order. */
  readonly chain: readonly CommittedMigration[];
}

/**
 * Renumbers migrations to follow others, in their own order. Migrations that follow already stay unchanged.
 * @param textOf Returns the current content of a migration's file.
 * @throws {MigrationsInvalidError} when the migrations that keep their numbers are not a chain.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when the order of the others is unclear.
 */
export function renumber(
  kept: readonly CommittedMigration[],
  own: readonly CommittedMigration[],
  textOf: (migration: CommittedMigration) => string,
): Renumbering {
  proveChain(kept);
  const chain = [...kept];
  const changed: Renumbered[] = [];
  for (const before of inTheirOrder(own)) {
    const last = chain.at(-1);
    const follows = before.previousHash === (last?.hash ?? null) && numberOf(before) > numberOf(last);
    const text = textOf(before);
    const moved = follows ? undefined : moveBehind(before, text, last);
    chain.push(moved?.after ?? before);
    if (moved !== undefined) changed.push(moved);
  }
  proveChain(chain);
  return { changed, chain };
}

/** By number. A migration that follows another by its header comes after it, even if someone changed the numbers. */
function inTheirOrder(own: readonly CommittedMigration[]): readonly CommittedMigration[] {
  const rest = own.toSorted((one, other) => numberOf(one) - numberOf(other));
  rest.forEach((migration, index) => {
    const before = rest[index - 1];
    if (before === undefined || numberOf(before) !== numberOf(migration)) return;
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `Migrations ${before.filename} and ${migration.filename} have the same number, and neither is on the branch whose migrations keep theirs. Nothing was changed. Name the branch that has one of them: npm run db:rebase -- --onto <branch>`,
    );
  });
  const sorted: CommittedMigration[] = [];
  while (rest.length > 0) {
    const hashes = new Set(rest.map(({ hash }) => hash));
    const next = rest.findIndex(({ previousHash }) => !hashes.has(previousHash ?? ''));
    sorted.push(...rest.splice(Math.max(next, 0), 1));
  }
  return sorted;
}

function moveBehind(
  before: CommittedMigration,
  text: string,
  last: CommittedMigration | undefined,
): Renumbered {
  const width = before.recordedName.length - '.sql'.length;
  const number = String(numberOf(last) + 1).padStart(width, '0');
  const filename = `${number}${before.filename.slice(width)}`;
  const previousHash = last?.hash ?? null;
  const moved = withHeader(text, previousHash ?? '-', hashOf(before.body, previousHash));
  return { before, after: parseMigration(filename, moved), text: moved };
}

/** The text with these two values in its header, and nothing else changed. */
function withHeader(text: string, previous: string, hash: string): string {
  const { headerLines } = parseMigrationText(text);
  return text
    .split('\n')
    .map((line, index) => {
      if (index >= headerLines) return line;
      if (/^--! Previous:/.test(line)) return `--! Previous: ${previous}`;
      return /^--! Hash:/.test(line) ? `--! Hash: ${hash}` : line;
    })
    .join('\n');
}

function numberOf(migration: CommittedMigration | undefined): number {
  return migration === undefined ? 0 : Number.parseInt(migration.recordedName, 10);
}
