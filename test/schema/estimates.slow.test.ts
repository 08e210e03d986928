import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { loadLargeTree } from '../support/rows/large-tables.ts';
import { foldAll } from '../support/rows/nodes.ts';
import { CALLS } from '../support/rows/row-functions.ts';

const database = databaseForFile();
let client: Client;

beforeAll(async () => {
  await loadLargeTree(database());
  await database().query("update filestore.backend_mounts set mount_key = 'm'");
  await foldAll(database());
  await database().query("select filestore.recount_rollups('m')");
  // Pending deltas in 300 directories.
  await database().query("update filestore.nodes set size_bytes = size_bytes + 1 where name = 'f1' and live");
  await database().query(
    "insert into filestore.journal_entries (command, primary_node_id) select 'write', 501 from generate_series(1, 100)",
  );
  await database().query(
    `select filestore.record_entries(s.id, (
       select jsonb_agg(jsonb_build_object('path', 'f' || g)) from generate_series(1, 200) g))
     from filestore.begin_scan('m', 'scanned') s`,
  );
  await database().query('analyze');
  client = await database().connect();
  // A plan that is far too slow fails.
  await client.query("set statement_timeout = '60s'");
});

interface Node {
  readonly 'Plan Rows': number;
  readonly 'Actual Rows': number;
  readonly 'Actual Loops': number;
  readonly 'Rows Removed by Filter'?: number;
  readonly 'Rows Removed by Join Filter'?: number;
  readonly 'Shared Hit Blocks': number;
  readonly 'Shared Read Blocks': number;
  readonly Plans?: readonly Node[];
}

async function planOf(statement: string): Promise<Node> {
  await client.query('begin');
  const { rows } = await client.query(`explain (analyze, buffers, timing off, format json) ${statement}`);
  await client.query('rollback');
  return rows[0]['QUERY PLAN'][0].Plan;
}

/** The pages and rows that a plan reads: the same each time, also on a busy machine. */
const workOf = (plan: Node): number => plan['Shared Hit Blocks'] + plan['Shared Read Blocks'] + rowsIn(plan);

function rowsIn(plan: Node): number {
  const each =
    plan['Actual Rows'] + (plan['Rows Removed by Filter'] ?? 0) + (plan['Rows Removed by Join Filter'] ?? 0);
  return each * plan['Actual Loops'] + (plan.Plans ?? []).reduce((sum, part) => sum + rowsIn(part), 0);
}

const METHODS = ['hashjoin', 'mergejoin', 'nestloop'] as const;

/** The work of a statement with one method of joins only. */
async function workBy(method: (typeof METHODS)[number], statement: string): Promise<number> {
  const others = METHODS.filter((other) => other !== method);
  for (const other of others) await client.query(`set enable_${other} = off`);
  const work = workOf(await planOf(statement));
  for (const other of others) await client.query(`reset enable_${other}`);
  return work;
}

/** The work of the better plan of two. Nested loops alone may take hours. */
const leastWork = async (statement: string) =>
  Math.min(await workBy('hashjoin', statement), await workBy('mergejoin', statement));

/** What returns rows: views, and functions except parts of scans, prunes and imports. With the column that holds the id of a node, if there is one. */
const sources = () =>
  database().query<{ kind: string; name: string; id: string | null }>(
    `select 'view' as kind, c.relname as name,
       (select a.attname from pg_attribute a where a.attrelid = c.oid and a.attname = 'id') as id
     from pg_class c
     where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'v'
     union all
     select 'function', p.proname,
       (select a.attname from pg_attribute a where a.attrelid = t.typrelid and a.attname = 'id' and p.proname not in ('command_by_id', 'list_commands', 'list_mounts', 'mount_by_id', 'mount_by_key')
        union all
        select o from unnest(p.proargnames, p.proargmodes) u (o, m) where o in ('id', 'node_id') and m = 't')
     from pg_proc p
     join pg_type t on t.oid = p.prorettype
     where p.pronamespace = 'filestore'::regnamespace and p.proretset
       and p.proname not in ('check_import', 'follow_entry', 'import_faults', 'moved_in_nodes', 'prunable_versions', 'staged_columns')
     order by 1, 2`,
  );

const textOf = ({ kind, name }: { readonly kind: string; readonly name: string }) =>
  `filestore.${kind === 'view' ? name : CALLS[name]}`;

test('every function that returns rows has an example', async () => {
  const functions = (await sources()).filter(({ kind }) => kind === 'function').map(({ name }) => name);
  expect(functions).toEqual(Object.keys(CALLS).sort());
});

test('the planner expects neither ten times more nor ten times fewer rows than each view and function returns', async () => {
  for (const source of await sources()) {
    const plan = await planOf(`select * from ${textOf(source)}`);
    const factor = Math.max(1, plan['Actual Rows']) / plan['Plan Rows'];
    expect(
      factor,
      `${source.name}: ${plan['Plan Rows']} expected, ${plan['Actual Rows']} returned`,
    ).toBeGreaterThanOrEqual(0.1);
    expect(
      factor,
      `${source.name}: ${plan['Plan Rows']} expected, ${plan['Actual Rows']} returned`,
    ).toBeLessThanOrEqual(10);
  }
});

const joinToNodes = (text: string, id: string | null) =>
  `select n.path, x.* from filestore.nodes n left join ${text} x on x.${id} = n.id
   where n.backend_mount_id = (select min(id) from filestore.backend_mounts) and n.depth > 0
   order by n.depth, n.path limit 100`;

test('a join of each view and function to nodes does at most ten times the work of the best plan', async () => {
  for (const source of (await sources()).filter(({ id }) => id !== null)) {
    const statement = joinToNodes(textOf(source), source.id);
    const work = workOf(await planOf(statement));
    expect(work, source.name).toBeLessThanOrEqual(10 * (await leastWork(statement)));
  }
}, 300_000);

// Otherwise the test above could not fail.
test('a join row by row does more than ten times the work of the best plan', async () => {
  const statement = joinToNodes(`filestore.${CALLS.list_totals}`, 'node_id');
  expect(await workBy('nestloop', statement)).toBeGreaterThan(10 * (await leastWork(statement)));
}, 120_000);
