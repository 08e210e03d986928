import { tokenize } from '../sql-text.ts';
import type { CommittedMigration } from './committed-migrations.ts';

/** An index and its schema, as the catalog has them. */
export interface IndexName {
  readonly schema: string;
  readonly index: string;
}

const IDENTIFIER = String.raw`(?:"(?:[^"]|"")+"|[a-z_\u0080-\uffff][\w$\u0080-\uffff]*)`;
const CREATE_INDEX = new RegExp(
  String.raw`^\s*create\s+(?:unique\s+)?index\s+concurrently\s+(?:if\s+not\s+exists\s+)?` +
    String.raw`(?<index>${IDENTIFIER})\s+on\s+(?:only\s+)?(?<schema>${IDENTIFIER})\s*\.`,
  'i',
);
const WORKS_CONCURRENTLY =
  /^\s*(?:create\s+(?:unique\s+)?index|drop\s+index|reindex\s[^;]*?)\s+concurrently\b/i;

/** The index that a migration builds concurrently; undefined for any other migration. */
export function concurrentIndexOf(
  migration: Pick<CommittedMigration, 'body' | 'transaction'>,
): IndexName | undefined {
  if (migration.transaction) return undefined;
  const { index, schema } = CREATE_INDEX.exec(statementText(migration.body))?.groups ?? {};
  if (index === undefined || schema === undefined) return undefined;
  return { schema: fold(schema), index: fold(index) };
}

/**
 * Whether a migration works on an index "concurrently": it blocks no one while it waits, and cancelling it
 * would leave an invalid index. Any other statement that waits for a lock blocks all later ones.
 */
export function worksConcurrently(migration: CommittedMigration): boolean {
  return !migration.transaction && WORKS_CONCURRENTLY.test(statementText(migration.body));
}

/** The SQL without its comments. */
function statementText(sql: string): string {
  return tokenize(sql)
    .map(({ text }) => text)
    .join(' ');
}

/** An identifier as the catalog has it (PostgreSQL manual, section 4.1.1). */
function fold(identifier: string): string {
  return identifier.startsWith('"')
    ? identifier.slice(1, -1).replaceAll('""', '"')
    : identifier.toLowerCase();
}
