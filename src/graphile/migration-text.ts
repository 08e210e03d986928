import { blankLinesBefore } from '../text.ts';

/** SQL as graphile-migrate reads it: a committed migration, or current.sql with its includes. */
export interface MigrationText {
  /** By name, such as `Message`. Of one that is there twice, which graphile-migrate refuses, the last. */
  readonly headers: ReadonlyMap<string, string>;
  readonly headerLines: number;
  /** What is run and hashed: without the header, and without what is blank around it. */
  readonly body: string;
  /** Number of lines before the first of `body`. */
  readonly linesBeforeBody: number;
  /** Whether it runs in a transaction: all do that do not begin with `--! no-transaction`. */
  readonly transaction: boolean;
}

// The rules below are graphile-migrate's: dist/migration.js (parseMigrationText) and dist/header.js. They stand here
// again because loading the library takes longer than everything else that a deploy with nothing to do does; a test
// holds them together.
const HEADER_LINE = /^--! ([A-Z][a-zA-Z0-9_]*)(?::(.*))?$/;
const NO_TRANSACTION = /^--!\s*no-transaction\b/;

/** Takes apart what a migration's file holds. */
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
