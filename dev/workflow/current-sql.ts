import { join } from 'node:path';
import { parseMigrationText } from '../../src/graphile/migration-text.ts';
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
import { readIfThere } from '../read-if-there.ts';

export function currentFile(migrationsFolder: string): string {
  return join(migrationsFolder, 'current.sql');
}

/** The migration being written; empty when there is no file yet. */
export async function readCurrent(migrationsFolder: string): Promise<string> {
  return (await readIfThere(currentFile(migrationsFolder))) ?? '';
}

/** Whether there is nothing to run. */
export function isBlank(text: string): boolean {
  return isEmpty(sourceOf(CURRENT, text));
}

/** The message that an uncommit left in the header. */
export function messageOf(text: string): string | undefined {
  return parseMigrationText(text).headers.get('Message') || undefined;
}

/** current.sql with its includes; undefined if one of them does not exist. */
export async function readCompiled(): Promise<SqlSource | undefined> {
  const { pending } = await readSources(PACKAGE_ROOT, true);
  return isSource(pending) ? pending : undefined;
}

/** Fixtures that current.sql includes, also indirectly; as paths below fixtures/. */
export async function includedFixtures(): Promise<ReadonlySet<string>> {
  const compiled = await readCompiled();
  const files = compiled?.text.split('\n').map((_, index) => compiled.placeOf(index + 1).file) ?? [];
  return new Set(
    files.filter((file) => file.startsWith(`${FIXTURES}/`)).map((file) => file.slice(FIXTURES.length + 1)),
  );
}
