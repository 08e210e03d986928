import type { Problem } from '../../sources/problem.ts';
import type { Sources } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';

const VERSIONS = 'view_filestore_node_versions';
/** The extra columns of a version, which come before those of nodes. */
const OWN = ['valid_from', 'valid_to', 'superseded_by_journal_id'];

interface Column {
  readonly name: string;
  /** The type, with the collation if it is not the type's default. */
  readonly type: string;
}

// Rows of nodes are copied into snapshots by position, and the view puts both together by position.
const COLUMNS = `
  select c.relname as relation, a.attname as name,
         concat_ws(' ',
           format_type(a.atttypid, a.atttypmod),
           case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation end) as type
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid
  join pg_type t on t.oid = a.atttypid
  where c.relnamespace = to_regnamespace('filestore') and c.relname in ('nodes', 'snapshots', '${VERSIONS}')
    and a.attnum > 0 and not a.attisdropped
  order by c.relname, a.attnum`;

/** Needs a database with all migrations applied. */
export const historyColumns: Gate<DatabaseSubject> = {
  name: 'history columns',
  proves: `snapshots and ${VERSIONS} have all columns of nodes, in the same order`,
  async evaluate({ sources, client }) {
    const { rows } = await client.query<Column & { readonly relation: string }>(COLUMNS);
    const columnsOf = (name: string) => rows.filter(({ relation }) => relation === name);
    const nodes = columnsOf('nodes');
    return judge([
      ...compare('snapshots', columnsOf('snapshots'), nodes, sources),
      ...compare(VERSIONS, columnsOf(VERSIONS), nodes, sources),
    ]);
  },
};

/** The first difference between the columns of nodes and those of a relation, which come after its own. */
function compare(
  relation: string,
  all: readonly Column[],
  nodes: readonly Column[],
  sources: Sources,
): readonly Problem[] {
  const [own, columns] = [all.slice(0, OWN.length), all.slice(OWN.length)];
  const at = nodes.findIndex(({ name, type }, position) => {
    const column = columns[position];
    return column?.name !== name || column.type !== type;
  });
  const position = at === -1 ? nodes.length : at;
  const [is, should] = [columns[position], nodes[position]];
  const startsRight = own.map(({ name }) => name).join() === OWN.join();
  if (startsRight && is === undefined && should === undefined) return [];
  const quote = (column: Column | undefined) =>
    column === undefined ? 'no column' : `column ${column.name} ${column.type}`;
  return [
    {
      ...locate(sources, 'column', 'nodes', (should ?? is)?.name ?? ''),
      what: startsRight
        ? `filestore.${relation} has ${quote(is)} where nodes has ${quote(should)}`
        : `filestore.${relation} does not begin with ${OWN.join(', ')}`,
      remedy:
        relation === VERSIONS
          ? `Write "--!include views/${VERSIONS}.sql" in migrations/current.sql, which recreates the view with all columns.`
          : `Add the same columns to both tables in the same order, as in: alter table filestore.snapshots add column if not exists ${(should ?? is)?.name} ${(should ?? is)?.type};`,
    },
  ];
}
