import { describe, expect, test } from 'vitest';
import { command, jsonCommand } from '../support/answers.ts';
import { databaseForEachTest } from '../support/test-database.ts';

const database = databaseForEachTest();

const verify = (url = database().url) => command(['verify'], url);

describe('an incomplete comparison is never reported as no difference:', () => {
  test('when another session has locked a table', async () => {
    const client = await database().connect();
    await client.query('begin; lock table filestore.nodes in access exclusive mode');
    const url = new URL(database().url);
    url.searchParams.set('options', '-c lock_timeout=200');
    const { exitCode, document } = await jsonCommand(['verify'], url.href);
    expect({ exitCode, document }).toEqual({
      exitCode: 1,
      document: {
        ok: false,
        command: 'verify',
        state: 'unchecked',
        reason: expect.stringMatching(
          /^the catalog could not be read \(.*lock timeout\).*db:verify:filestore/,
        ),
      },
    });
    // It also does not wait forever when the session has no lock timeout.
    expect(await verify()).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/lock timeout/) });
    await client.query('rollback');
    expect(await verify()).toMatchObject({ exitCode: 0 });
  });
});
