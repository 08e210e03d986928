import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { compile } from 'graphile-migrate';
import type { Client } from 'pg';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

/** A file of an example: written whole, or changed by a diff. */
interface Step {
  readonly file: string;
  readonly language: string;
  readonly text: string;
}

export interface Example {
  readonly title: string;
  readonly steps: readonly Step[];
}

const CURRENT = 'migrations/current.sql';

/** The examples of migrations/README.md: blocks with the path of a file above them, below a heading. */
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

/** Writes what comes before the next migration into a copy of the package, and says what that migration is. */
export function* migrationsOf(example: Example, folder: string): Generator<string> {
  for (const { file, language, text } of example.steps) {
    if (file === CURRENT) {
      yield text;
      continue;
    }
    const path = join(folder, file);
    if (language === 'sql' && existsSync(path)) throw new Error(`${file} is there already: show its diff`);
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
    if (parts.length !== 2) throw new Error(`${file} has ${parts.length - 1} times:\n${side('-')}`);
    return parts.join(side('+'));
  }, original);
}

/** Runs a migration as graphile-migrate does: includes put in by itself, in a transaction unless it says otherwise. */
export async function applyMigration(
  client: Client,
  url: string,
  folder: string,
  text: string,
): Promise<void> {
  const settings = { connectionString: url, migrationsFolder: join(folder, 'migrations') };
  const sql = await compile(settings, text, { filename: CURRENT });
  if (/^--! no-transaction\n/.test(sql)) {
    await client.query(sql);
    return;
  }
  await client.query('begin');
  try {
    await client.query(sql);
    await client.query('commit');
  } catch (error) {
    await client.query('rollback');
    throw error;
  }
}
