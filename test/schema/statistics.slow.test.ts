import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { sqlStateOf } from '../../src/cause-codes.ts';
import { explainChange, type Plan } from '../support/databases/plans.ts';
import { databaseForEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import { INDEXED_CALLS, LOOKUPS, loadKnownTree, READS } from '../support/rows/lookup-statements.ts';
import { CALLS } from '../support/rows/row-functions.ts';

const database = databaseForEachTest();
let statements: readonly string[];

/** These read whole tables, however they are planned. */
const READ_ALL = ['check_integrity'];

beforeEach(async () => {
  const { known } = await loadKnownTree(database());
  await database().query("select filestore.begin_scan('m', 'scanned')");
  const views = await database().query<{ name: string }>(
    "select relname as name from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'v'",
  );
  const rowFunctions = Object.entries(CALLS).filter(([name]) => !READ_ALL.includes(name));
  const sources = [
    ...READS.map(([, call]) => call(known)),
    ...INDEXED_CALLS.map(([call]) => call),
    ...rowFunctions.map(([, call]) => call),
    ...views.map(({ name }) => name),
  ];
  statements = [
    ...LOOKUPS.map(([, statement]) => statement(known)),
    ...[...new Set(sources)].map((source) => `select * from filestore.${source}`),
  ];
});

const SETTINGS = [
  'set plan_cache_mode = force_custom_plan; set random_page_cost = 1.1',
  'set plan_cache_mode = force_generic_plan; set random_page_cost = 4',
];

interface Reading extends Pick<Plan, 'pages' | 'rows'> {
  readonly statement: string;
  readonly how: string;
}

/** What each statement reads with the present statistics. */
async function readAll(statistics: string): Promise<readonly Reading[]> {
  const readings: Reading[] = [];
  for (const settings of SETTINGS) {
    const client = await database().connect();
    await client.query(`${settings}; set statement_timeout = '20s'`);
    for (const statement of statements) {
      const how = `${statistics} statistics; ${settings}`;
      readings.push({ statement, how, ...(await read(client, statement)) });
    }
    await client.end();
  }
  return readings;
}

const QUERY_CANCELED = '57014';

async function read(client: Client, statement: string): Promise<Pick<Plan, 'pages' | 'rows'>> {
  try {
    return await explainChange(client, statement);
  } catch (error) {
    if (sqlStateOf(error) !== QUERY_CANCELED) throw error;
    return { pages: Number.POSITIVE_INFINITY, rows: 0 };
  }
}

/** As after a restore, or on a standby of another kind, before the first `analyze`. */
const forgetStatistics = () =>
  withoutTriggers(database(), async (superuser) => {
    const tables =
      "select oid from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'r'";
    await superuser.query(`delete from pg_statistic where starelid in (${tables})`);
    await superuser.query(`update pg_class set reltuples = -1, relpages = 0 where oid in (${tables})`);
  });

/** Puts half of all files into d5, which the statements read. */
const crowd = () =>
  withoutTriggers(database(), (superuser) =>
    superuser.query(
      `update filestore.nodes n
       set parent_id = d.id, parent_path = d.path, name = n.parent_path || n.name, path = d.path || '/' || n.parent_path || n.name
       from filestore.nodes d
       where d.path = 'd5' and n.depth = 2 and n.parent_id % 2 = 0 and n.parent_id <> d.id`,
    ),
  );

/** Leaves a tenth of the files. */
const deleteFiles = () =>
  withoutTriggers(database(), (superuser) =>
    superuser.query(
      `update filestore.nodes set live = false, parent_live = null, state = 'deleted', deleted_at = now()
       where live and kind = 'file' and depth = 2 and id % 10 <> 1`,
    ),
  );

/** A read of so many pages takes about a millisecond. */
const FEW_PAGES = 200;

/** docs/testing.md says when they are slow, and by how much. */
const KNOWN = ['list_totals', 'view_filestore_directories'];

/** Statements that read more than ten times what they need, in one of the readings. */
function slowOnes(readings: readonly Reading[]): readonly string[] {
  const promised = statements.filter((statement) => !KNOWN.some((name) => statement.includes(name)));
  return promised.flatMap((statement) => {
    const own = readings.filter((reading) => reading.statement === statement);
    const fewest = Math.min(...own.map(({ pages }) => pages));
    return own
      .filter(({ pages, rows }) => pages > 10 * Math.max(fewest, rows, FEW_PAGES))
      .map(({ how, pages }) => `${pages} pages, not ${fewest}: ${statement} (${how})`);
  });
}

test('no statement reads ten times more with missing or outdated statistics, or another way to plan', async () => {
  const readings = [...(await readAll('current'))];
  await deleteFiles();
  readings.push(...(await readAll('outdated')));
  await forgetStatistics();
  readings.push(...(await readAll('no')));
  expect(slowOnes(readings)).toEqual([]);
}, 600_000);

test('nor where one directory has half of all nodes', async () => {
  await crowd();
  // Else a count of so many children reads each of their pages.
  await database().query('vacuum filestore.nodes');
  const readings = [...(await readAll('outdated'))];
  await database().query('analyze');
  readings.push(...(await readAll('current')));
  await forgetStatistics();
  readings.push(...(await readAll('no')));
  expect(slowOnes(readings)).toEqual([]);
}, 600_000);
