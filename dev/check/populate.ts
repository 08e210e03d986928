import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type pg from 'pg';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import type { Problem } from '../sources/problem.ts';
import { sourceOf } from '../sources/sources.ts';
import { runStatements } from './run-statements.ts';

export const SAMPLE_ROWS = 'migrations/sample-rows.sql';

/** Fills every table of a migrated database with sample rows. */
export async function populate(client: pg.Client): Promise<Problem | undefined> {
  const text = await readFile(join(PACKAGE_ROOT, SAMPLE_ROWS), 'utf8');
  const problem = await runStatements(client, sourceOf(SAMPLE_ROWS, text));
  return problem && { ...problem, remedy: 'Update this file to match the schema.' };
}
