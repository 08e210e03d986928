import { createRequire } from 'node:module';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { parseMigrationText } from '../../src/graphile/migration-text.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

const requireGraphile = createRequire(import.meta.url);
const { getAllMigrations } = requireGraphile('graphile-migrate/dist/migration.js') as {
  getAllMigrations: (settings: { migrationsFolder: string }) => Promise<readonly Record<string, unknown>[]>;
};
const { isNoTransactionDefined } = requireGraphile('graphile-migrate/dist/header.js') as {
  isNoTransactionDefined: (sql: string) => boolean;
};

describe('the text of a migration is read as graphile-migrate reads it:', () => {
  test('name, hash, message and SQL of every file of this package', async () => {
    const migrationsFolder = join(PACKAGE_ROOT, 'migrations');
    const theirs = await getAllMigrations({ migrationsFolder });
    const ours = await readCommittedMigrations(migrationsFolder);
    expect(
      ours.map((file) => [
        file.filename,
        file.recordedName,
        file.hash,
        file.previousHash,
        file.body,
        file.message,
      ]),
    ).toEqual(
      theirs.map((file) => [
        file.realFilename,
        file.filename,
        file.hash,
        file.previousHash,
        file.body,
        file.message,
      ]),
    );
  });

  test.each([
    ['select 1;', true],
    ['--! no-transaction\nselect 2;', false],
    ['\n--!  no-transaction\nselect 2;', false],
    ['-- --! no-transaction\nselect 3;', true],
    ['select 4;\n--! no-transaction', true],
  ])('whether %j runs in a transaction', (sql, transaction) => {
    for (const header of ['', '--! Previous: -\n--! Hash: sha1:0\n--! Message: step\n\n']) {
      const text = parseMigrationText(header + sql);
      expect(text.transaction).toBe(transaction);
      expect(isNoTransactionDefined(text.body)).toBe(!transaction);
    }
  });
});
