import pg, { type Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { BUILD_INDEX, createItems } from '../support/databases/concurrent-index.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { one } from '../support/rows/nodes.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { until } from '../support/until.ts';

let server: OwnServer;
let client: Client;
let copy: PackageCopy;

beforeAll(async () => {
  server = await startOwnServer({ settings: ['max_prepared_transactions=2', 'autovacuum_naptime=1s'] });
  client = new pg.Client(server.url);
  await client.connect();
  copy = copyPackage();
  await startRun(copy, server.url).ended;
});
afterAll(async () => {
  copy?.remove();
  await client?.end();
  await server?.stop();
});
beforeEach(async () => {
  await createItems(client);
});
afterEach(async () => {
  await client.query('drop schema app cascade');
});

const isValid = async () =>
  (
    await one(
      client,
      "select bool_and(indisvalid) as valid from pg_index where indrelid = 'app.items'::regclass",
    )
  ).valid;

test('a forgotten prepared transaction that blocks a build is named', async () => {
  copy.addMigration('held-up', BUILD_INDEX);
  await client.query("begin; insert into app.items default values; prepare transaction 'forgotten'");
  const run = startRun(copy, server.url, { settings: { lockWaitMs: 500 } });
  await expect(run.ended).rejects.toMatchObject({
    code: 'MIGRATION_FAILED',
    message: expect.stringMatching(
      /for prepared transaction 'forgotten' of role "postgres" in database "postgres", prepared at .*, and was/,
    ),
  });
  await client.query("rollback prepared 'forgotten'");
  await startRun(copy, server.url).ended;
  expect(await isValid()).toBe(true);
});

test("an invalid index does not wait for the server's own vacuum of its table", async () => {
  copy.addMigration('vacuumed', BUILD_INDEX.replaceAll('note', 'id'));
  await client.query("insert into app.items (note) select repeat('x', 500) from generate_series(1, 50000)");
  await client.query('create index items_id_idx on app.items (id)');
  await client.query(
    "update pg_index set indisvalid = false where indexrelid = 'app.items_id_idx'::regclass",
  );
  // An autovacuum starts at once and does not end.
  await client.query(
    `alter table app.items set (
       autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
       autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1
     )`,
  );
  await client.query('delete from app.items where id % 2 = 0');
  await until(async () => {
    const { rows } = await client.query(
      `select from pg_locks join pg_stat_activity using (pid)
       where relation = 'app.items'::regclass and backend_type = 'autovacuum worker' and mode = 'ShareUpdateExclusiveLock' and granted`,
    );
    return rows.length > 0;
  });
  const run = startRun(copy, server.url, { settings: { lockTimeoutMs: 30_000 } });
  await run.ended;
  expect(eventsOf(run, 'retry')).toEqual([]);
  expect(eventsOf(run, 'warning').map(({ message }) => message)).toEqual([
    'Dropped the invalid index app.items_id_idx, left by a failed build.',
  ]);
  expect(await isValid()).toBe(true);
});
