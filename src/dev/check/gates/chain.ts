import { join } from 'node:path';
import { readCommittedMigrations } from '../../../db/history.ts';
import { MigrationsInvalidError, MigrationsMissingError } from '../../../errors.ts';
import { type Gate, judge } from '../gate.ts';
import { COMMITTED, type Sources } from '../sources.ts';

const REMEDY = 'Only "npm run db:commit" and "npm run db:uncommit" write in this folder.';

export const chain: Gate<Sources> = {
  name: 'chain',
  proves: 'the committed migrations are unedited, each following the one before',
  async look({ root, committed }) {
    try {
      await readCommittedMigrations(join(root, 'migrations'));
      return judge([]);
    } catch (error) {
      if (error instanceof MigrationsMissingError) {
        return judge([{ file: COMMITTED, line: null, what: error.message, remedy: REMEDY }]);
      }
      if (!(error instanceof MigrationsInvalidError)) throw error;
      const file = `${COMMITTED}/${error.filename}`;
      const lines = committed.find((source) => source.file === file)?.text.split('\n') ?? [];
      const header = error.code === 'MIGRATION_OUT_OF_CHAIN' ? '--! Previous' : '--! Hash';
      // Where the header is what is wrong, there is none to find.
      const line = Math.max(lines.findIndex((text) => text.startsWith(header)) + 1, 1);
      return judge([{ file, line, what: error.message, remedy: REMEDY }]);
    }
  },
};
