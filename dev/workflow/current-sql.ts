import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import {
  CURRENT,
  FIXTURES,
  isEmpty,
  isSource,
  readSources,
  type SqlSource,
  sourceOf,
} from '../check/sources.ts';

/** graphile-migrate's (dist/migration.js, parseMigrationText). */
const HEADER_LINE = /^--! [A-Z][a-zA-Z0-9_]*(?::.*)?$/;

export function currentFile(migrationsFolder: string): string {
  return join(migrationsFolder, 'current.sql');
}

/** The migration being written; empty when there is no file yet. */
export async function readCurrent(migrationsFolder: string): Promise<string> {
  return readFile(currentFile(migrationsFolder), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
}

/** Whether there is nothing to run. */
export function isBlank(text: string): boolean {
  return isEmpty(sourceOf(CURRENT, text));
}

/** The message that uncommitting left in the header. */
export function messageOf(text: string): string | undefined {
  const header = text.split('\n').slice(0, headerLines(text)).join('\n');
  return /^--! Message:(.*)$/m.exec(header)?.[1]?.trim() || undefined;
}

/** Number of lines before the first that is committed: header lines and blank ones. */
export function linesBeforeBody(text: string): number {
  const header = headerLines(text);
  const first = text
    .split('\n')
    .slice(header)
    .findIndex((line) => line.trim() !== '');
  return header + Math.max(0, first);
}

/** current.sql with its includes; undefined when one of them leads nowhere. */
export async function readCompiled(): Promise<SqlSource | undefined> {
  const { pending } = await readSources(PACKAGE_ROOT, true);
  return isSource(pending) ? pending : undefined;
}

/** Fixtures that current.sql pulls in, also by way of another one; as paths below fixtures/. */
export async function includedFixtures(): Promise<ReadonlySet<string>> {
  const compiled = await readCompiled();
  const files = compiled?.text.split('\n').map((_, index) => compiled.placeOf(index + 1).file) ?? [];
  return new Set(
    files.filter((file) => file.startsWith(`${FIXTURES}/`)).map((file) => file.slice(FIXTURES.length + 1)),
  );
}

function headerLines(text: string): number {
  const lines = text.split('\n');
  const end = lines.findIndex((line) => !HEADER_LINE.test(line));
  return end === -1 ? lines.length : end;
}
