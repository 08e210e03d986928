import { expect, test } from 'vitest';
import { readCatalog } from '../../src/catalog/read.ts';
import { runMigrations, verifySchema } from '../../src/index.ts';
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
