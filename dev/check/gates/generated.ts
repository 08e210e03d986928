import { join } from 'node:path';
import { readCommittedMigrations } from '../../../src/graphile/committed-migrations.ts';
import { findStaleFiles, generateFiles } from '../../documents/generated-files.ts';
import { type DatabaseSubject, type Gate, judge, notRun } from '../gate.ts';
import { chain } from './chain.ts';

/** Needs a database with the committed migrations. */
export const generated: Gate<DatabaseSubject> = {
  name: 'generated',
  proves: 'the generated files match the committed migrations',
  async evaluate({ sources, client }) {
    const { state } = await chain.evaluate(sources);
    if (state !== 'passed') return notRun('the gate chain does not pass');
    const { root } = sources;
    const migration = (await readCommittedMigrations(join(root, 'migrations'))).at(-1);
    if (migration === undefined) return notRun('there is no committed migration');
    return judge(await findStaleFiles(await generateFiles(client, migration, root), root));
  },
};
