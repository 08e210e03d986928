import type { CommittedMigration } from '../../src/graphile/committed-migrations.ts';
import { parseMigrationText } from '../../src/graphile/migration-text.ts';
import type { FailedText, ThreadFailure, ThreadTarget } from '../../src/graphile/protocol.ts';
import { MIGRATIONS_FOLDER } from '../../src/package-root.ts';
import { placeAt, splitStatements } from '../../src/sql-text.ts';
import { guidanceOf } from '../sources/guidance.ts';
import { COMMITTED } from '../sources/sources.ts';
import { readCompiled } from './current-sql.ts';

/** A failure as shown to the author of the SQL. */
export interface SqlFailure {
  readonly message: string;
  /** SQLSTATE; null when the failure is not the server's. */
  readonly code: string | null;
  readonly detail: string | null;
  /** The server's hint. */
  readonly hint: string | null;
  /** The remedy of this package. */
  readonly advice: string | null;
  /** The function or block that was running, in the server's words. */
  readonly where: string | null;
  /** The database of the failure; null if nothing was run. */
  readonly database: 'main' | 'shadow' | null;
  readonly place: FailurePlace | null;
  /** The failed statement, line by line; for a long one, the lines near the place. */
  readonly statement: readonly StatementLine[];
}

/** Place in the file. Line and column count from 1. */
export interface FailurePlace {
  /** Path in the package, such as migrations/fixtures/views/some_view.sql. */
  readonly file: string;
  readonly line: number;
  /** Null if the server gave no position. */
  readonly column: number | null;
}

export interface StatementLine {
  readonly line: number;
  readonly text: string;
  /** Whether the server stopped here. */
  readonly here: boolean;
}

type PlaceOf = (line: number) => { readonly file: string; readonly line: number | null };

/** Lines of a statement that are shown before and after the one where the server stopped. */
const AROUND = 6;

/**
 * Describes a failure, and finds its line in the file.
 * @param committed The committed migrations; one that is not among them comes from current.sql.
 * @param folder Where graphile-migrate worked, which may be a copy.
 */
export async function explainFailure(
  { error, target, failed }: ThreadFailure,
  committed: readonly CommittedMigration[],
  folder: string,
): Promise<SqlFailure> {
  return {
    message: error.message.replaceAll(folder, 'migrations').replaceAll(MIGRATIONS_FOLDER, 'migrations'),
    code: error.code,
    detail: error.detail,
    ...guidanceOf(error),
    where: error.where?.split('\n')[0] ?? null,
    database: target?.database ?? null,
    ...(failed === null || target === null
      ? { place: null, statement: [] }
      : findStatement(failed, error.position, await placesOf(target, committed))),
  };
}

/** Maps the lines of the sent text to lines of files. */
async function placesOf(
  { committed: name }: ThreadTarget,
  committed: readonly CommittedMigration[],
): Promise<PlaceOf> {
  const migration = committed.find(({ filename }) => filename === name);
  if (migration !== undefined) {
    return (line) => ({
      file: `${COMMITTED}/${migration.filename}`,
      line: migration.linesBeforeBody + line,
    });
  }
  const compiled = await readCompiled();
  // During a commit, the text lacks the header of current.sql; otherwise it is complete.
  const skipped =
    name === null || compiled === undefined ? 0 : parseMigrationText(compiled.text).linesBeforeBody;
  return (line) => compiled?.placeOf(skipped + line) ?? { file: 'migrations/current.sql', line: null };
}

function findStatement(
  { text, statement: number }: FailedText,
  position: number | null,
  placeOf: PlaceOf,
): Pick<SqlFailure, 'place' | 'statement'> {
  const statements = splitStatements(text);
  const at = position === null ? statements[number - 1]?.start : placeAt(text, position).offset;
  if (at === undefined) return { place: null, statement: [] };
  const row = rowOf(text, at);
  const { file, line } = placeOf(row + 1);
  const { start, end } = statements.find((statement) => at <= statement.end) ?? { start: at, end: at };
  const first = Math.max(Math.min(row, rowOf(text, start)), row - AROUND);
  const last = Math.min(Math.max(row, rowOf(text, end)), row + AROUND);
  const column = position === null ? null : at - text.lastIndexOf('\n', at - 1);
  return {
    place: line === null ? null : { file, line, column },
    statement: text
      .split('\n')
      .slice(first, last + 1)
      .map((content, index) => ({
        line: placeOf(first + index + 1).line ?? 0,
        text: content,
        here: first + index === row,
      })),
  };
}

function rowOf(text: string, offset: number): number {
  return text.slice(0, offset).split('\n').length - 1;
}
