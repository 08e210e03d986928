import { describe, expect, test } from 'vitest';
import { command, jsonCommand } from '../support/command-line/answers.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';

const database = databaseForEachTest();

describe('an incomplete comparison is never reported as no difference:', () => {
  test('when another session has locked a table', async () => {
    const client = await database().connect();
    await client.query('begin; lock table filestore.nodes in access exclusive mode');
    const { exitCode, document } = await jsonCommand(['verify'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 1,
      document: {
        ok: false,
        command: 'verify',
        database: database().name,
        state: 'unchecked',
        reason: expect.stringMatching(
          /^the catalog could not be read \(.*lock timeout\).*db:verify:filestore/,
        ),
      },
    });
    await client.query('rollback');
    expect(await command(['verify'], database().url)).toMatchObject({ exitCode: 0 });
  });
});
