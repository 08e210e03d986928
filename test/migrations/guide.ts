import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { compile } from 'graphile-migrate';
import type { Client } from 'pg';
import { afterEach, beforeEach } from 'vitest';
import { readDataChecks } from '../../src/graphile/data-check-text.ts';
import { evaluateDataChecks } from '../../src/migrate/data-checks.ts';
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

const CURRENT = 'migrations/current.sql';
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

/** A copy of migrations/ for each test, which an example may change. */
export function folderForEachTest(): () => string {
  let folder = '';
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'filestore-examples-'));
    for (const entry of ['migrations', '.gmrc', '.squawk.toml']) {
      cpSync(join(PACKAGE_ROOT, entry), join(folder, entry), { recursive: true });
    }
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  return () => folder;
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

/** Runs a migration as the runner does: after its checks, with its includes, in a transaction unless it says otherwise. */
export async function execute(
  client: Client,
  url: string,
  folder: string,
  { by, sql: text }: Run,
): Promise<void> {
  if (by === 'owner') {
    await client.query(text);
    return;
  }
  const { checks } = readDataChecks(text);
  const outcomes = await evaluateDataChecks(client, checks, 0);
  const failed = checks.find((_, index) => outcomes[index]?.state !== 'passed');
  if (failed !== undefined) throw new Error(failed.message);
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
