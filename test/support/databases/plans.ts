import type { Client } from 'pg';
import type { TestDatabase } from './test-database.ts';

interface Node {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly 'Actual Rows': number;
  readonly 'Shared Hit Blocks': number;
  readonly 'Shared Read Blocks': number;
  readonly Plans?: readonly Node[];
}

/** What a statement read and returned. */
export interface Plan {
  /** Number of returned rows. */
  readonly rows: number;
  /** Number of pages that it read from memory or disk: the same each time, also on a busy machine. */
  readonly pages: number;
  readonly indexes: readonly string[];
  /** Tables that it scanned. */
  readonly scanned: readonly string[];
  readonly sorts: boolean;
}

/** Runs a statement twice, since the first run also reads the catalog, and describes the second run. */
export async function explain(client: Client, statement: string): Promise<Plan> {
  await explainOnce(client, statement);
  return explainOnce(client, statement);
}

/** Runs a statement twice, and undoes what it did. */
export async function explainChange(client: Client, statement: string): Promise<Plan> {
  for (let warm = false; ; warm = true) {
    await client.query('begin');
    try {
      const plan = await explainOnce(client, statement);
      if (warm) return plan;
    } finally {
      await client.query('rollback');
    }
  }
}

/** Reads by functions in the statement are included only in the number of pages. */
async function explainOnce(client: Client, statement: string): Promise<Plan> {
  const text = `explain (analyze, buffers, timing off, format json) ${statement}`;
  const { rows } = await client.query<{ 'QUERY PLAN': readonly [{ readonly Plan: Node }] }>(text);
  const top = rows[0]?.['QUERY PLAN'][0].Plan;
  if (top === undefined) throw new Error(`no plan of ${statement}`);
  const nodes = flatten(top);
  const has = (type: string) => nodes.filter((node) => node['Node Type'].includes(type));
  return {
    rows: top['Actual Rows'],
    pages: top['Shared Hit Blocks'] + top['Shared Read Blocks'],
    indexes: nodes.flatMap((node) => node['Index Name'] ?? []),
    scanned: has('Seq Scan').flatMap((node) => node['Relation Name'] ?? []),
    sorts: has('Sort').length > 0,
  };
}

const flatten = (node: Node): readonly Node[] => [node, ...(node.Plans ?? []).flatMap(flatten)];

/** The indexes that function calls in one transaction use, and the tables that they scan. */
export async function scansOf(
  database: TestDatabase,
  tables: readonly string[],
  ...calls: readonly string[]
): Promise<readonly string[]> {
  const client = await database.connect();
  await client.query('begin');
  for (const call of calls) await client.query(`select * from filestore.${call}`);
  const { rows } = await client.query(
    `select c.relname as name
     from pg_class c
     where c.relnamespace = 'filestore'::regnamespace
       and (c.relkind = 'i' or c.relname = any($1))
       and pg_stat_get_xact_numscans(c.oid) > 0`,
    [tables],
  );
  await client.query('rollback');
  await client.end();
  return rows.map(({ name }) => name);
}
