import { expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import { importDatabaseForEachTest, key } from '../support/rows/staged.ts';

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
