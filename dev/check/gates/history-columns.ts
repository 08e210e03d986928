import type { Problem } from '../../sources/problem.ts';
import type { Sources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';
import type { DatabaseSubject } from '../subject.ts';

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

function compare(
  relation: string,
  all: readonly Column[],
  nodes: readonly Column[],
  sources: Sources,
): readonly Problem[] {
  const columns = all.slice(OWN.length);
  const own = all.slice(0, OWN.length).map(({ name }) => name);
  const problem = (column: Column | undefined, owner: string, what: string, change: string): Problem => ({
    ...locate(sources, 'column', owner, ...(column === undefined ? [] : [column.name])),
    what: `filestore.${relation} ${what}`,
    remedy:
      relation === VERSIONS
        ? `Write "--!include views/${VERSIONS}.sql" in migrations/current.sql, which recreates the view with all columns.`
        : change,
  });
  const missing = nodes.filter(({ name }) => !columns.some((column) => column.name === name));
  const extra = columns.filter(({ name }) => !nodes.some((column) => column.name === name));
  const retyped = columns.filter(({ name, type }) =>
    nodes.some((column) => column.name === name && column.type !== type),
  );
  const place = nodes.findIndex(({ name }, position) => columns[position]?.name !== name);
  const problems = [
    ...(own.join() === OWN.join()
      ? []
      : [
          problem(
            undefined,
            relation,
            `begins with ${own.join(', ')} instead of ${OWN.join(', ')}`,
            `Put these three columns first, then those of nodes.`,
          ),
        ]),
    ...missing.map((column) =>
      problem(
        column,
        'nodes',
        `has no column ${column.name}, which nodes has`,
        `Add it: alter table filestore.snapshots add column if not exists ${column.name} ${column.type};`,
      ),
    ),
    ...extra.map((column) =>
      problem(
        column,
        relation,
        `has a column ${column.name}, which nodes does not have`,
        `Add it to nodes: alter table filestore.nodes add column if not exists ${column.name} ${column.type}; or drop it from snapshots.`,
      ),
    ),
    ...retyped.map((column) => {
      const { type } = nodes.find(({ name }) => name === column.name) ?? column;
      return problem(
        column,
        'nodes',
        `has ${column.name} as ${column.type}, and nodes has it as ${type}`,
        `Give both tables the same type: alter table filestore.snapshots alter column ${column.name} type ${type};`,
      );
    }),
  ];
  if (problems.length > 0 || place === -1) return problems;
  const [is, should] = [columns[place], nodes[place]];
  return [
    problem(
      should,
      'nodes',
      `has ${is?.name} where nodes has ${should?.name}`,
      'Add new columns to nodes and snapshots in the same order. A column that is not committed yet can be dropped and added again; npm run db:reset starts over.',
    ),
  ];
}
