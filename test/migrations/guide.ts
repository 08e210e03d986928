import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

/** A file of an example: a whole text, or a diff. */
interface Step {
  readonly file: string;
  readonly language: string;
  readonly text: string;
}

export interface Example {
  readonly title: string;
  readonly steps: readonly Step[];
}

export const CURRENT = 'migrations/current.sql';
/** Replaces the path above SQL that is not part of a migration. */
const PSQL = 'psql';

/** The examples of migrations/README.md: below a heading, blocks with the path of a file above each. */
export function readExamples(): readonly Example[] {
  const text = readFileSync(join(PACKAGE_ROOT, 'migrations', 'README.md'), 'utf8');
  return text
    .split(/^### /m)
    .slice(1)
    .map((section) => ({
      title: section.slice(0, section.indexOf('\n')),
      steps: [...section.matchAll(/^`(\S+)`:\n\n```(\w+)\n([\s\S]*?)^```$/gm)].map(
        ([, file = '', language = '', text = '']) => ({ file, language, text }),
      ),
    }));
}

/** SQL of an example: a migration, or statements that the owner runs between two migrations. */
export interface Run {
  readonly by: 'migration' | 'owner';
  readonly sql: string;
}

/** Before each run, writes its fixtures into a copy of the package, and its migration into current.sql. */
export function* runsOf(example: Example, folder: string): Generator<Run> {
  for (const { file, language, text } of example.steps) {
    if (file === PSQL) {
      yield { by: 'owner', sql: text };
      continue;
    }
    if (file === CURRENT) {
      writeFileSync(join(folder, CURRENT), text);
      yield { by: 'migration', sql: text };
      continue;
    }
    const path = join(folder, file);
    if (language === 'sql' && existsSync(path)) throw new Error(`${file} exists already: show a diff of it`);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, language === 'diff' ? patched(readFileSync(path, 'utf8'), text, file) : text);
  }
}

function patched(original: string, diff: string, file: string): string {
  return diff.split(/^@@\n/m).reduce((text, hunk) => {
    const lines = hunk.trimEnd().split('\n');
    const side = (sign: string) =>
      lines
        .filter((line) => line === '' || line.startsWith(' ') || line.startsWith(sign))
        .map((line) => `${line.slice(1)}\n`)
        .join('');
    const parts = text.split(side('-'));
    if (parts.length !== 2)
      throw new Error(
        `${file} must have this text once, but has it ${parts.length - 1} times:\n${side('-')}`,
      );
    return parts.join(side('+'));
  }, original);
}
