import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { PackageCopy } from '../../../harness/package-copy.ts';

/** A migration that can run again, like all of this package. */
export function addColumn(name: string): string {
  return `alter table filestore.nodes add column if not exists ${name} text;\n`;
}

/**
 * Adds two branches' migrations as a merge leaves them: both follow the last one, so that two have one number.
 * @param theirs A migration of the other branch for each column.
 * @param mine The same of this branch.
 * @returns their file names.
 */
export function addMergedBranches(
  copy: PackageCopy,
  theirs: readonly string[],
  mine: readonly string[],
): { readonly theirs: readonly string[]; readonly mine: readonly string[] } {
  const pathOf = (filename: string) => join(copy.folder, 'migrations', 'committed', filename);
  const add = (columns: readonly string[]) =>
    columns.map((column) => copy.addMigration(column.replace('_', '-'), addColumn(column)));
  const others = add(theirs);
  const texts = others.map((filename) => [pathOf(filename), readFileSync(pathOf(filename))] as const);
  for (const [path] of texts) rmSync(path);
  const own = add(mine);
  for (const [path, text] of texts) writeFileSync(path, text);
  return { theirs: others, mine: own };
}
