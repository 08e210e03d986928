import { expect, test } from 'vitest';
import { readCatalog } from '../../src/catalog/read.ts';
import { migrationStatus, pendingMigrations, runMigrations, verifySchema } from '../../src/index.ts';
import { OTHER_VALUES, setOnDatabase } from '../support/databases/database-settings.ts';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';

const plain = databaseForFile();
const database = databaseForEachTest('empty');

test.each(Object.entries(OTHER_VALUES))(
  'a database that sets %s to %s alone gets the same schema',
  async (name, value) => {
    await setOnDatabase(database(), { [name]: value });
    // A role that may set every value.
    const env = { DATABASE_URL: database().superuserUrl };
    expect(await runMigrations({ env })).toMatchObject({ schema: { state: 'same' } });
    // verify reports the setting that keeps triggers from firing in other sessions.
    const state = name === 'session_replication_role' ? 'drifted' : 'same';
    expect(await verifySchema({ env })).toMatchObject({ state });
    expect(await readCatalog(await database().connect())).toEqual(await readCatalog(await plain().connect()));
  },
);

// A server that has just started a process for a session needs more than a millisecond for its first queries.
test.each([1, 5, 20])('a limit of %d ms for a statement does not end any command', async (limitMs) => {
  await setOnDatabase(database(), { statement_timeout: `${limitMs}ms` });
  const env = { DATABASE_URL: database().url };
  expect(await migrationStatus({ env })).toMatchObject({ state: 'empty' });
  expect(await pendingMigrations({ env })).not.toEqual([]);
  expect(await runMigrations({ env })).toMatchObject({ schema: { state: 'same' } });
  const url = new URL(database().url);
  url.searchParams.set('options', `-c statement_timeout=${limitMs}ms`);
  for (let time = 0; time < 10; time += 1) {
    expect(await verifySchema({ connectionString: url.href })).toMatchObject({ state: 'same' });
  }
});
