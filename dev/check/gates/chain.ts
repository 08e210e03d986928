import { join } from 'node:path';
import { hasCode, MigrationsInvalidError } from '../../../src/errors.ts';
import {
  type CommittedMigration,
  readCommittedMigrations,
} from '../../../src/graphile/committed-migrations.ts';
import { isMigrationFile } from '../../../src/graphile/migration-text.ts';
import type { Problem } from '../../sources/problem.ts';
import { COMMITTED, type Sources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

const REMEDY = 'Do not edit this folder. Use npm run db:commit and, also after a merge, npm run db:uncommit.';

/** Errors about the line that names the previous file. */
const BROKEN_LINKS: readonly string[] = ['MIGRATION_OUT_OF_CHAIN', 'MIGRATION_FILE_MISSING'];

export const chain: Gate<Sources> = {
  name: 'chain',
  proves: 'the committed migrations are unedited, each follows the one before, and their numbers have no gap',
  async evaluate({ root, committed }) {
    const ignored = committed.filter(({ file }) => !isMigrationFile(file.slice(COMMITTED.length + 1)));
    if (ignored.length > 0) {
      const what = 'has a name that no migration can have, so no database gets it';
      const remedy = 'Rename it to a number, a hyphen and a name, or remove it.';
      return judge(ignored.map(({ file }) => ({ file, line: null, what, remedy })));
    }
    try {
      return judge(numberProblems(await readCommittedMigrations(join(root, 'migrations'))));
    } catch (error) {
      if (hasCode(error, 'MIGRATIONS_MISSING')) {
        return judge([{ file: COMMITTED, line: null, what: error.message, remedy: REMEDY }]);
      }
      if (!(error instanceof MigrationsInvalidError)) throw error;
      const file = `${COMMITTED}/${error.filename}`;
      const lines = committed.find((source) => source.file === file)?.text.split('\n') ?? [];
      const header = BROKEN_LINKS.includes(error.code) ? '--! Previous' : '--! Hash';
      // The header may be missing.
      const line = Math.max(lines.findIndex((text) => text.startsWith(header)) + 1, 1);
      return judge([{ file, line, what: error.message, remedy: REMEDY }]);
    }
  },
};

/** Databases record the number only: a migration with another one is refused as `HISTORY_RENUMBERED`. */
function numberProblems(migrations: readonly CommittedMigration[]): readonly Problem[] {
  return migrations.flatMap(({ filename, recordedName }, index) => {
    const number = String(index + 1).padStart(6, '0');
    if (recordedName === `${number}.sql`) return [];
    const what = `must have the number ${number}, because it is migration ${index + 1} of the folder`;
    const remedy = `Rename it to ${filename.replace(/^\d+/, number)}.`;
    return [{ file: `${COMMITTED}/${filename}`, line: null, what, remedy }];
  });
}
