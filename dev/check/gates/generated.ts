import { join } from 'node:path';
import { readCommittedMigrations } from '../../../src/db/committed-migrations.ts';
import { FilestoreError } from '../../../src/errors.ts';
import { findStaleFiles, generateFiles } from '../../generated-files.ts';
import { type Gate, judge, notRun } from '../gate.ts';
import type { DatabaseSubject } from '../subject.ts';

/** Needs a database with the committed migrations. */
export const generated: Gate<DatabaseSubject> = {
  name: 'generated',
  proves: 'the generated files match the committed migrations',
  async check({ sources: { root }, client }) {
    const migration = await lastMigration(root);
    if (migration === undefined) return notRun('the chain of committed migrations is broken');
    return judge(await findStaleFiles(await generateFiles(client, migration, root), root));
  },
};

async function lastMigration(root: string) {
  try {
    return (await readCommittedMigrations(join(root, 'migrations'))).at(-1);
  } catch (error) {
    if (error instanceof FilestoreError) return undefined;
    throw error;
  }
}
