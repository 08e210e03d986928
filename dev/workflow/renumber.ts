import { FilestoreError } from '../../src/errors.ts';
import {
  type CommittedMigration,
  parseMigration,
  proveChain,
} from '../../src/graphile/committed-migrations.ts';
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
 * Renumbers migrations to follow others, in the order of their numbers. Migrations that follow already stay unchanged.
 * @param texts The content of each file of `own`, by its name.
 * @throws {MigrationsInvalidError} when the migrations that keep their numbers are not a chain.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when two of the others have the same number.
 */
export function renumber(
  kept: readonly CommittedMigration[],
  own: readonly CommittedMigration[],
  texts: ReadonlyMap<string, string>,
): Renumbering {
  proveChain(kept);
  const chain = [...kept];
  const changed: Renumbered[] = [];
  for (const [index, before] of own.entries()) {
    refuseSameNumber(own[index - 1], before);
    const last = chain.at(-1);
    const follows = before.previousHash === (last?.hash ?? null) && numberOf(before) > numberOf(last);
    if (follows) {
      chain.push(before);
      continue;
    }
    const moved = moveBehind(last, before, texts.get(before.filename) ?? '');
    changed.push(moved);
    chain.push(moved.after);
  }
  proveChain(chain);
  return { changed, chain };
}

function refuseSameNumber(one: CommittedMigration | undefined, other: CommittedMigration): void {
  if (one === undefined || numberOf(one) !== numberOf(other)) return;
  throw new FilestoreError(
    'SCHEMA_CHANGE_REFUSED',
    `Migrations ${one.filename} and ${other.filename} have the same number, and neither is on the branch whose migrations keep theirs. Nothing was changed. Name the branch that has one of them: npm run db:rebase -- --onto <branch>`,
  );
}

function moveBehind(
  last: CommittedMigration | undefined,
  before: CommittedMigration,
  text: string,
): Renumbered {
  const width = before.recordedName.length - '.sql'.length;
  const number = String(numberOf(last) + 1).padStart(width, '0');
  const previous = last?.hash ?? null;
  const { headerLines } = parseMigrationText(text);
  const lines = text.split('\n');
  const header = lines
    .slice(0, headerLines)
    .map((line) =>
      line
        .replace(/^--! Previous:.*/, `--! Previous: ${previous ?? '-'}`)
        .replace(/^--! Hash:.*/, `--! Hash: ${hashOf(before.body, previous)}`),
    );
  const moved = [...header, ...lines.slice(headerLines)].join('\n');
  return { before, after: parseMigration(`${number}${before.filename.slice(width)}`, moved), text: moved };
}

function numberOf(migration: CommittedMigration | undefined): number {
  return migration === undefined ? 0 : Number.parseInt(migration.recordedName, 10);
}
