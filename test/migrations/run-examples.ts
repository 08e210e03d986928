import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compile } from 'graphile-migrate';
import type { Client } from 'pg';
import { afterEach, beforeEach } from 'vitest';
import { readDataChecks } from '../../src/graphile/data-check-text.ts';
import { evaluateDataChecks } from '../../src/migrate/evaluate-data-checks.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { CURRENT, type Run } from './guide.ts';

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
