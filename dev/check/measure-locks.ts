import type pg from 'pg';
import { isWord, type TokenizedStatement } from '../../src/sql-text.ts';
import type { Place } from '../sources/problem.ts';
import type { SqlSource } from '../sources/sources.ts';
import { runStatements, withRollback } from './run-statements.ts';

/** The effects of one statement on an existing table or view. */
export interface TableImpact extends Place {
  /** The statement in one line, shortened. */
  readonly statement: string;
  /** Such as `filestore.nodes`. */
  readonly table: string;
  /** The lock that this statement takes first, such as `ShareLock`; null if it takes none. */
  readonly lock: string | null;
  /** What others cannot do until the migration ends. */
  readonly blocks: 'nothing' | 'schema changes' | 'writes' | 'reads and writes';
  /** Whether the whole table is rewritten. */
  readonly rewrites: boolean;
  /** Whether the whole table is read. */
  readonly scans: boolean;
  readonly drops: boolean;
  /** Rows inserted, updated or deleted, among the sample rows. */
  readonly rowsWritten: number;
}

/** The effects of the migration in progress on other users of the database. */
export type LockReport =
  | { readonly state: 'measured'; readonly impacts: readonly TableImpact[] }
  | { readonly state: 'not measured'; readonly reason: string };

/**
 * From the weakest to the strongest (PostgreSQL manual, section 13.3), with the everyday statements that each blocks.
 */
const LOCKS: readonly (readonly [mode: string, blocks: TableImpact['blocks']])[] = [
  ['AccessShareLock', 'nothing'],
  ['RowShareLock', 'nothing'],
  ['RowExclusiveLock', 'nothing'],
  ['ShareUpdateExclusiveLock', 'schema changes'],
  ['ShareLock', 'writes'],
  ['ShareRowExclusiveLock', 'writes'],
  ['ExclusiveLock', 'writes'],
  ['AccessExclusiveLock', 'reads and writes'],
];
const FIRST_WORTH_TELLING = 3;
const LONGEST_STATEMENT = 100;

interface Relation {
  readonly oid: number;
  readonly name: string;
  /** The file of its rows, which changes when the table is rewritten. */
  readonly storage: number | null;
  readonly scans: number;
  readonly written: number;
}

// Both read only catalogs. The counters are those of this transaction since its last flush.
const RELATIONS = `
  select c.oid::integer as oid, format('%I.%I', n.nspname, c.relname) as name, pg_relation_filenode(c.oid)::integer as storage,
         coalesce(pg_stat_get_xact_numscans(c.oid), 0)::integer as scans,
         (pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid)
            + pg_stat_get_xact_tuples_deleted(c.oid))::integer as written
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'm', 'v', 'f') and n.nspname <> 'information_schema' and n.nspname !~ '^pg_'`;
const HELD = `
  select relation::integer as oid, array_agg(mode) as modes
  from pg_locks where pid = pg_backend_pid() and locktype = 'relation' and granted
  group by relation`;

interface Moment {
  readonly relations: ReadonlyMap<number, Relation>;
  /** Rank of the strongest lock on each; -1 for no lock. */
  readonly ranks: ReadonlyMap<number, number>;
}

/** Runs the migration statement by statement, measures the effects of each, and rolls back. */
export async function measureLocks(client: pg.Client, migration: SqlSource): Promise<LockReport> {
  if (!migration.transaction) {
    const reason =
      'the migration runs without a transaction. A concurrent index build blocks no reads or writes, and reads the table twice.';
    return { state: 'not measured', reason };
  }
  return withRollback(client, async () => {
    const impacts: TableImpact[] = [];
    const original = (await readMoment(client)).relations;
    const problem = await runStatements(client, migration, async (statement, execute) => {
      const before = await readMoment(client);
      await withIndexes(client, statement, execute);
      const after = await readMoment(client);
      impacts.push(...compare(original, before, after, { migration, statement }));
    });
    return problem === undefined
      ? { state: 'measured', impacts }
      : { state: 'not measured', reason: `${problem.file}:${problem.line} ${problem.what}` };
  });
}

/**
 * The planner scans a table of few rows even if it has an index. With scans disabled, a remaining scan has no index
 * to use.
 */
async function withIndexes(
  client: pg.Client,
  { tokens }: TokenizedStatement,
  execute: () => Promise<void>,
): Promise<void> {
  const plans = isWord(tokens[0], 'insert', 'update', 'delete', 'merge', 'select', 'with');
  if (plans) await client.query('set local enable_seqscan = off');
  await execute();
  if (plans) await client.query('set local enable_seqscan = on');
}

async function readMoment(client: pg.Client): Promise<Moment> {
  const { rows: relations } = await client.query<Relation>(RELATIONS);
  const { rows: held } = await client.query<{ oid: number; modes: readonly string[] }>(HELD);
  const rankOf = (mode: string) => LOCKS.findIndex(([name]) => name === mode);
  return {
    relations: new Map(relations.map((relation) => [relation.oid, relation])),
    ranks: new Map(held.map(({ oid, modes }) => [oid, Math.max(...modes.map(rankOf))])),
  };
}

function compare(
  original: Moment['relations'],
  before: Moment,
  after: Moment,
  { migration, statement }: { readonly migration: SqlSource; readonly statement: TokenizedStatement },
): readonly TableImpact[] {
  return [...original.values()].flatMap(({ oid, name }): readonly TableImpact[] => {
    const [was, is] = [before.relations.get(oid), after.relations.get(oid)];
    // Dropped by an earlier statement.
    if (was === undefined) return [];
    const rank = after.ranks.get(oid) ?? -1;
    const isNew = rank >= FIRST_WORTH_TELLING && rank > (before.ranks.get(oid) ?? -1);
    const impact = {
      ...migration.placeOf(statement.line),
      statement: shorten(statement.text),
      table: name,
      lock: isNew ? (LOCKS[rank]?.[0] ?? null) : null,
      blocks: isNew ? (LOCKS[rank]?.[1] ?? 'nothing') : 'nothing',
      rewrites: is !== undefined && is.storage !== was.storage,
      scans: is !== undefined && is.scans > was.scans,
      drops: is === undefined,
      rowsWritten: is === undefined ? 0 : is.written - was.written,
    };
    const { lock, rewrites, scans, drops, rowsWritten } = impact;
    return lock !== null || rewrites || scans || drops || rowsWritten > 0 ? [impact] : [];
  });
}

function shorten(text: string): string {
  const line = text.replaceAll(/\s+/g, ' ');
  return line.length > LONGEST_STATEMENT ? `${line.slice(0, LONGEST_STATEMENT - 1)}…` : line;
}
