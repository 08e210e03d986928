import type { Sources } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';

const VERSIONS = 'view_filestore_node_versions';
/** The extra columns of a version, which come before those of nodes. */
const OWN = 3;

// Rows of nodes are copied into snapshots by position, and the view puts both together by position.
const COLUMNS = `
  select a.attname as name,
         concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
           case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation end) as column
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  where a.attrelid = to_regclass($1) and a.attnum > 0 and not a.attisdropped
  order by a.attnum`;

interface Column {
  readonly name: string;
  /** With its type, and the collation if it is not the type's default. */
  readonly column: string;
}

/** Needs a database with all migrations applied. */
export const historyColumns: Gate<DatabaseSubject> = {
  name: 'history columns',
  proves: `snapshots and ${VERSIONS} have all columns of nodes, in the same order`,
  async evaluate({ sources, client }) {
    const columnsOf = async (relation: string) =>
      (await client.query<Column>(COLUMNS, [`filestore.${relation}`])).rows;
    const nodes = await columnsOf('nodes');
    const problems = ['snapshots', VERSIONS].map(async (relation) =>
      compare(relation, (await columnsOf(relation)).slice(OWN), nodes, sources),
    );
    return judge((await Promise.all(problems)).flat());
  },
};

/** The first difference between the columns of nodes and those of a relation after its own. */
function compare(relation: string, columns: readonly Column[], nodes: readonly Column[], sources: Sources) {
  const length = Math.max(columns.length, nodes.length);
  const at = Array.from({ length }).findIndex((_, index) => columns[index]?.column !== nodes[index]?.column);
  if (at === -1) return [];
  const [is, should] = [columns[at], nodes[at]];
  return [
    {
      ...locate(sources, 'column', 'nodes', (should ?? is)?.name ?? ''),
      what: `filestore.${relation} has ${is?.column ?? 'no column'} where nodes has ${should?.column ?? 'none'}`,
      remedy:
        relation === VERSIONS
          ? `Write "--!include views/${VERSIONS}.sql" in migrations/current.sql, which recreates the view with all columns.`
          : `Add the same columns to both tables in the same order, as in: alter table filestore.snapshots add column if not exists ${(should ?? is)?.column};`,
    },
  ];
}
