import { createHash } from 'node:crypto';
import { blankLinesBefore } from '../text.ts';

/** SQL as graphile-migrate reads it: a committed migration, or current.sql with its includes. */
export interface MigrationText {
  /**
   * By name, such as `Message`. If a header occurs twice, which graphile-migrate refuses, this has the last
   * one.
   */
  readonly headers: ReadonlyMap<string, string>;
  readonly headerLines: number;
  /** The SQL that is run and hashed, without the header and surrounding blank lines. */
  readonly body: string;
  /** Number of lines before the first of `body`. */
  readonly linesBeforeBody: number;
  /** Whether it runs in a transaction: false if it begins with `--! no-transaction`. */
  readonly transaction: boolean;
}

// The rules below are graphile-migrate's: dist/migrationFilename.js, dist/hash.js, dist/header.js and
// dist/migration.js (parseMigrationText, compileIncludes). They are repeated here because loading the library
// takes longer than everything else in a run without pending migrations. Tests compare the two.
const FILENAME = /^([0-9]+)(-[-_a-zA-Z0-9]*)?\.sql$/;
const HEADER_LINE = /^--! ([A-Z][a-zA-Z0-9_]*)(?::(.*))?$/;
const NO_TRANSACTION = /^--!\s*no-transaction\b/;
const INCLUDE = /^--![ \t]*include[ \t]+(.*\.sql)[ \t]*$/;

export function isMigrationFile(filename: string): boolean {
  return FILENAME.test(filename);
}

/** Name under which a migration is recorded: number only, such as `000001.sql`. */
export function recordedNameOf(filename: string): string {
  return `${FILENAME.exec(filename)?.[1]}.sql`;
}

/** The hash of a migration that follows the one with `previousHash`. */
export function hashOf(body: string, previousHash: string | null): string {
  const text = `${`${previousHash ?? ''}\n${body.trim()}`.trim()}\n`;
  return `sha1:${createHash('sha1').update(text).digest('hex')}`;
}

/** Splits the text of a migration file into its parts. */
export function parseMigrationText(text: string): MigrationText {
  const lines = text.split('\n');
  const headers = new Map<string, string>();
  let headerLines = 0;
  for (const line of lines) {
    const match = HEADER_LINE.exec(line);
    if (match === null) break;
    headers.set(match[1] ?? '', (match[2] ?? '').trim());
    headerLines += 1;
  }
  const afterHeader = lines.slice(headerLines).join('\n');
  const body = `${afterHeader.trim()}\n`;
  return {
    headers,
    headerLines,
    body,
    linesBeforeBody: headerLines + blankLinesBefore(afterHeader),
    transaction: !NO_TRANSACTION.test(body),
  };
}

/** The fixture that a line includes, as a path below fixtures/; undefined for other lines. */
export function includedBy(line: string): string | undefined {
  return INCLUDE.exec(line)?.[1];
}

/** The lines around an included text. */
export function includeMarks(path: string): { readonly begin: string; readonly end: string } {
  return { begin: `--! Included ${path}`, end: `--! EndIncluded ${path}` };
}
