import { afterEach, beforeEach, describe, expect, inject, test, vi } from 'vitest';
import { closePool, getClient, getPool, migrationStatus, withTransaction } from '../../src/index.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { canUse } from '../support/processes/programs.ts';
import { createMount } from '../support/rows/nodes.ts';
import { type PgBouncer, pgbouncerBinary, startPgbouncer } from '../support/servers/pgbouncer.ts';

describe.skipIf(!canUse('pgbouncer', pgbouncerBinary() !== undefined))('a service behind PgBouncer', () => {
  const database = databaseForEachTest();
  let bouncer: PgBouncer | undefined;
  afterEach(async () => {
    await closePool();
    vi.unstubAllEnvs();
    await bouncer?.stop();
  });

  const start = async (settings: readonly string[] = []) => {
    bouncer = await startPgbouncer({ server: inject('adminUrl'), mode: 'transaction', settings });
    vi.stubEnv('FILESTORE_DATABASE_URL', bouncer.url(database().name));
  };

  describe('with its default settings', () => {
    beforeEach(() => start());
    const REFUSAL = {
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(/unsupported startup parameter.*ignore_startup_parameters = options/),
    };

    test.each([
      ['getClient', () => getClient()],
      ["the pool's query", () => getPool().query('select 1')],
      ["the pool's connect", () => getPool().connect()],
      ['withTransaction', () => withTransaction(async () => undefined)],
    ])('gets an error from %s that names the setting of the pooler for its options', async (_, connect) => {
      await expect(connect()).rejects.toMatchObject(REFUSAL);
    });

    test('gets the same message about the options of its own URL', async () => {
      const url = `${bouncer?.url(database().name)}?options=-c%20jit%3Doff`;
      await expect(migrationStatus({ env: { DATABASE_URL: url } })).rejects.toMatchObject(REFUSAL);
    });
  });

  test('with ignore_startup_parameters works, and transactions are still READ COMMITTED', async () => {
    await database().query(
      `alter database ${database().name} set default_transaction_isolation = 'serializable'`,
    );
    await start(['ignore_startup_parameters = options']);
    const isolation = await withTransaction(async (client) => {
      await createMount(client);
      const { rows } = await client.query("select current_setting('transaction_isolation') as level");
      return rows[0]?.level;
    });
    expect(isolation).toBe('read committed');
    const { rows } = await getPool().query('select count(*)::integer as count from filestore.backend_mounts');
    expect(rows).toEqual([{ count: 1 }]);
  });
});
