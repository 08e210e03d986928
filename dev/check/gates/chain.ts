import { join } from 'node:path';
import { readCommittedMigrations } from '../../../src/db/committed-migrations.ts';
import { hasCode, MigrationsInvalidError } from '../../../src/errors.ts';
import { type Gate, judge } from '../gate.ts';
import { COMMITTED, type Sources } from '../sources.ts';

const REMEDY =
  'Only "npm run db:commit", "npm run db:uncommit" and, after a merge, "npm run db:rebase" write in this folder.';

/** Seen by what a file says of the one before it. */
const BROKEN_LINKS: readonly string[] = ['MIGRATION_OUT_OF_CHAIN', 'MIGRATION_FILE_MISSING'];

export const chain: Gate<Sources> = {
  name: 'chain',
  proves: 'the committed migrations are unedited, each following the one before',
  async look({ root, committed }) {
    try {
      await readCommittedMigrations(join(root, 'migrations'));
      return judge([]);
    } catch (error) {
      if (hasCode(error, 'MIGRATIONS_MISSING')) {
        return judge([{ file: COMMITTED, line: null, what: error.message, remedy: REMEDY }]);
      }
      if (!(error instanceof MigrationsInvalidError)) throw error;
      const file = `${COMMITTED}/${error.filename}`;
      const lines = committed.find((source) => source.file === file)?.text.split('\n') ?? [];
      const header = BROKEN_LINKS.includes(error.code) ? '--! Previous' : '--! Hash';
      // Where the header is what is wrong, there is none to find.
      const line = Math.max(lines.findIndex((text) => text.startsWith(header)) + 1, 1);
      return judge([{ file, line, what: error.message, remedy: REMEDY }]);
    }
  },
};
