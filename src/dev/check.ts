import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { MODEL_FILE } from '../catalog/committed.ts';
import { readCommittedMigrations } from '../db/history.ts';
import { CheckFailedError, FilestoreError } from '../errors.ts';
import { PACKAGE_ROOT } from '../package-root.ts';
import { checkSchemaModel } from './schema-model.ts';

/** Something to mend, as one line that names the file. */
type Problem = string;

/**
 * The gate for a schema change: the chain of committed migrations is whole, nothing is left in current.sql, the
 * linter has no complaint, and the committed model of the schema is what the migrations make.
 * @returns what was checked, one line each.
 * @throws {CheckFailedError} with every problem found.
 */
export async function checkMigrations(): Promise<readonly string[]> {
  const migrations = join(PACKAGE_ROOT, 'migrations');
  const chain = await checkChain(migrations);
  const problems = [
    ...chain,
    ...(await checkCurrent(migrations)),
    ...checkLint(),
    // A broken chain cannot be applied.
    ...(chain.length === 0 ? await checkSchemaModel() : []),
  ];
  if (problems.length > 0) {
    throw new CheckFailedError(`The migrations are not ready:\n${problems.join('\n')}`, problems);
  }
  return [
    'committed migrations: unedited, each following the one before',
    'current.sql: empty',
    'squawk: no complaint that is not waived in .squawk.toml',
    `${MODEL_FILE}: what the migrations make of an empty database`,
  ];
}

async function checkChain(migrations: string): Promise<readonly Problem[]> {
  try {
    await readCommittedMigrations(migrations);
    return [];
  } catch (error) {
    if (error instanceof FilestoreError) return [`migrations/committed: ${error.message}`];
    throw error;
  }
}

async function checkCurrent(migrations: string): Promise<readonly Problem[]> {
  const text = await readFile(join(migrations, 'current.sql'), 'utf8');
  const statements = text.replace(/--.*$/gm, '').replace(/\/\*[\s\S]*?\*\//g, '');
  // An include is a comment to SQL, but not to graphile-migrate.
  if (statements.trim() === '' && !/^--![ \t]*include\b/m.test(text)) return [];
  return [
    'migrations/current.sql is not empty. Commit the migration: npx graphile-migrate commit -m "What it does".',
  ];
}

function checkLint(): readonly Problem[] {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [findSquawk(), '--reporter', 'gcc', 'migrations/committed/*.sql'],
    { cwd: PACKAGE_ROOT, encoding: 'utf8' },
  );
  if (status === 0) return [];
  const lines = `${stdout}\n${stderr}`.split('\n').filter((line) => line.trim() !== '');
  return lines.map((line) => `squawk: ${line}`);
}

function findSquawk(): string {
  const manifest = 'squawk-cli/package.json';
  try {
    return join(dirname(createRequire(import.meta.url).resolve(manifest)), 'js', 'bin', 'squawk');
  } catch (cause) {
    const why = 'squawk is not installed, so that the migrations cannot be linted: run npm ci.';
    throw new CheckFailedError(why, [why], { cause });
  }
}
