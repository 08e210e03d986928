import { readFile } from 'node:fs/promises';
import type pg from 'pg';
import { runStatements } from './apply.ts';
import type { Problem } from './gate.ts';
import { sourceOf } from './sources.ts';

const FILE = 'dev/check/population.sql';

/** Gives a migrated database some rows in every table. */
export async function populate(client: pg.Client): Promise<Problem | undefined> {
  const text = await readFile(new URL('./population.sql', import.meta.url), 'utf8');
  const problem = await runStatements(client, sourceOf(FILE, text));
  return problem && { ...problem, remedy: 'Bring this file up to date with the schema.' };
}
