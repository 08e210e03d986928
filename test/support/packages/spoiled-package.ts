import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach } from 'vitest';
import type { Finding } from '../../../dev/check/gate.ts';
import type { Problem } from '../../../dev/sources/problem.ts';
import {
  CURRENT,
  expandIncludes,
  readSources,
  type Sources,
  sourceOf,
} from '../../../dev/sources/sources.ts';
import { copyPackage, type PackageCopy } from '../../../harness/package-copy.ts';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';

/** A copy of the package that a test damages before a gate checks it. */
export interface SpoiledPackage extends PackageCopy {
  write(file: string, text: string): void;
  append(file: string, text: string): void;
  read(file: string): string;
  /** current.sql as the next migration, if given. */
  sources(current?: string): Promise<Sources>;
}

export interface SpoilOptions {
  /** Whether the copy can run its command line. Default: it has only the files that gates read. */
  readonly whole?: boolean;
}

/** Creates copies that are removed after the test. */
export function packageToSpoil(): (options?: SpoilOptions) => SpoiledPackage {
  const copies: PackageCopy[] = [];
  afterEach(() => {
    for (const copy of copies.splice(0)) copy.remove();
  });
  return ({ whole = false } = {}) => {
    const copy = copyPackage(
      whole
        ? {}
        : {
            only: [
              'migrations',
              'schema',
              'src/sql',
              'package.json',
              'README.md',
              'CHANGELOG.md',
              '.gmrc',
              '.squawk.toml',
            ],
          },
    );
    copies.push(copy);
    const pathOf = (file: string) => join(copy.folder, file);
    const write = (file: string, text: string) => writeFileSync(pathOf(file), text);
    return {
      ...copy,
      write,
      append: (file, text) => appendFileSync(pathOf(file), text),
      read: (file) => readFileSync(pathOf(file), 'utf8'),
      sources(current) {
        if (current !== undefined) write('migrations/current.sql', current);
        return readSources(copy.folder, current !== undefined);
      },
    };
  };
}

/** Read once per test file, since the checkout does not change. */
let checkout: Promise<Sources> | undefined;

/** The SQL of the checkout, with this text as current.sql and next migration. */
export async function checkoutWith(text: string): Promise<Sources> {
  checkout ??= readSources(PACKAGE_ROOT, false);
  const sources = await checkout;
  const current = sourceOf(CURRENT, text);
  return { ...sources, current, pending: expandIncludes(current, sources.fixtures) };
}

export const PASSED: Finding = { state: 'passed' };

/** The problems that a gate found; empty if it passed. Expects a place and a remedy in each. */
export async function problemsOf(finding: Finding | Promise<Finding>): Promise<readonly Problem[]> {
  const found = await finding;
  if (found.state === 'not run') throw new Error(`the gate did not run: ${found.reason}`);
  const problems = found.state === 'failed' ? found.problems : [];
  for (const { file, what, remedy } of problems) {
    if (file === '' || what === '' || remedy === '')
      throw new Error(`a problem lacks its file, text or remedy: ${file}: ${what}`);
  }
  return problems;
}

/** The problems as short lines. */
export async function linesOf(finding: Finding | Promise<Finding>): Promise<readonly string[]> {
  return (await problemsOf(finding)).map(({ file, line, what }) => `${file}:${line} ${what}`);
}
