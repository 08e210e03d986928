import { expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const LEVELS = 100;
const FILES = 5_000;

/** Stages directories in each other, and files beside them. */
async function stageChain(topName: string): Promise<void> {
  await database().query(
    'create schema if not exists old; create table old.chain (id bigint, parent_id bigint, name text, kind filestore.node_kind)',
  );
  await database().query(
    `insert into old.chain
     select 1000 + g, case when g > 1 then 999 + g end, case when g = 1 then $1 else 'd' end, 'directory'::filestore.node_kind
     from generate_series(1, $2::integer) g
     union all
     select 100000 + g, null, 'f' || g, 'file' from generate_series(1, $3::integer) g`,
    [topName, LEVELS, FILES],
  );
}

/** What a dry run finds, and the pages of temporary tables that it reads. */
async function dryRun() {
  const call = `filestore.check_import('${key}', 'old.chain')`;
  const explained = await one(database(), `explain (analyze, buffers, format json) select * from ${call}`);
  const { Plan: plan } = explained['QUERY PLAN'][0];
  const pages = plan['Local Hit Blocks'] + plan['Local Read Blocks'];
  const reasons = await database().query(
    `select reason, count(*)::integer from ${call} group by 1 order by 1`,
  );
  return { pages, reasons };
}

test('a refused directory with many levels in it costs hardly more than one that is taken', async () => {
  await stageChain('top');
  const taken = await dryRun();
  expect(taken.reasons).toEqual([]);
  await database().query('drop table old.chain');
  await stageChain('bad\u0001name');
  const refused = await dryRun();
  expect(refused.reasons).toEqual([
    { reason: 'import_parent_refused', count: LEVELS - 1 },
    { reason: 'nodes_name_check', count: 1 },
  ]);
  expect(refused.pages).toBeLessThan(2 * taken.pages);
});

test('a refused file whose name another one would get, and so on, costs a few lookups for each of them', async () => {
  const rows = (rename: (index: number) => string) =>
    Array.from({ length: 500 }, (_, index) => ({ id: 1000 + index, name: rename(index), kind: 'file' }));
  const last = 499;
  await stage(
    database(),
    'chain',
    rows((index) => `log.${index}`).map((row) => ({ ...row, parent_id: null })),
  );
  await database().query(`call filestore.import_nodes('${key}', 'old.chain')`);
  await database().query("update old.chain set name = 'new.' || id");
  const taken = await dryRun();
  expect(taken.reasons).toEqual([]);
  await database().query(
    "update old.chain set name = case id when $1 then E'bad\\u0001' else 'log.' || id - 999 end",
    [1000 + last],
  );
  const refused = await dryRun();
  expect(refused.reasons).toEqual([
    { reason: 'nodes_name_check', count: 1 },
    { reason: 'nodes_name_taken', count: last },
  ]);
  expect(refused.pages).toBeLessThan(5 * taken.pages);
});

test.each([
  ['refused rows', "update old.chain set name = E'bad\\u0001' || id where id % 10 = 0"],
  ['rows that the mount has', `call filestore.import_nodes('${key}', 'old.chain')`],
])('the transaction that plans an import can use the indexes of %s', async (_, prepare) => {
  await stageChain('top');
  await database().query(prepare);
  const client = await database().connect();
  await client.query('begin');
  await client.query(`select filestore.plan_import('${key}', 'old.chain', null, null)`);
  const { rows } = await client.query(
    `select indcheckxmin as later, count(*)::integer from pg_index
     where indrelid = 'pg_temp.filestore_import_nodes'::regclass group by 1`,
  );
  expect(rows).toEqual([{ later: false, count: 3 }]);
});
