import { type Design, query } from '../design.ts';
import { parentStatements } from '../parent-column.ts';
import { commonStatements, createTables, loadNodes, SUMS } from '../table-definitions.ts';

const SCHEMA = 'closure_table';

// For each statement, not for each row. It climbs along parent_id, so parents may come with the same statement.
const TABLES = `
  create table ${SCHEMA}.closure (
    ancestor_id   bigint not null,
    descendant_id bigint not null,
    depth         integer not null,
    primary key (ancestor_id, descendant_id) include (depth)
  );
  create index on ${SCHEMA}.closure (descendant_id) include (ancestor_id, depth);

  create function ${SCHEMA}.add_ancestors() returns trigger language plpgsql as $$
  begin
    insert into ${SCHEMA}.closure (ancestor_id, descendant_id, depth)
    with recursive above (ancestor_id, descendant_id, depth) as (
      select a.id, a.id, 0 from added a
      union all
      select n.parent_id, u.descendant_id, u.depth + 1
      from above u
      cross join lateral (select p.parent_id from ${SCHEMA}.nodes p where p.id = u.ancestor_id offset 0) n
      where n.parent_id is not null
    )
    select ancestor_id, descendant_id, depth from above;
    return null;
  end $$;
  create trigger nodes_add_ancestors after insert on ${SCHEMA}.nodes referencing new table as added
    for each statement execute function ${SCHEMA}.add_ancestors();

  create function ${SCHEMA}.move_ancestors() returns trigger language plpgsql as $$
  begin
    delete from ${SCHEMA}.closure c
    using ${SCHEMA}.closure below, ${SCHEMA}.closure above
    where below.ancestor_id = new.id
      and above.descendant_id = new.id and above.ancestor_id <> new.id
      and c.descendant_id = below.descendant_id and c.ancestor_id = above.ancestor_id;
    insert into ${SCHEMA}.closure (ancestor_id, descendant_id, depth)
    select above.ancestor_id, below.descendant_id, above.depth + below.depth + 1
    from ${SCHEMA}.closure above
    cross join ${SCHEMA}.closure below
    where above.descendant_id = new.parent_id and below.ancestor_id = new.id;
    return null;
  end $$;
  create trigger nodes_move_ancestors after update of parent_id on ${SCHEMA}.nodes
    for each row when (new.parent_id <> old.parent_id) execute function ${SCHEMA}.move_ancestors();

  create function ${SCHEMA}.remove_ancestors() returns trigger language plpgsql as $$
  begin
    delete from ${SCHEMA}.closure c using removed r where c.descendant_id = r.id;
    return null;
  end $$;
  create trigger nodes_remove_ancestors after delete on ${SCHEMA}.nodes referencing old table as removed
    for each statement execute function ${SCHEMA}.remove_ancestors();`;

const common = commonStatements(SCHEMA);
const pointers = parentStatements(SCHEMA);

const subtreeSum: NonNullable<Design['subtreeSum']> = (top) =>
  query(
    `select ${SUMS}
     from ${SCHEMA}.closure c
     join ${SCHEMA}.nodes n on n.id = c.descendant_id
     where c.ancestor_id = $1 and c.depth > 0 and n.deleted_at is null`,
    top.id,
  );

export const design: Design = {
  key: 'd',
  title: '(d) closure table',
  color: '#d55e00',
  schema: SCHEMA,
  specialities: ['subtreeSum'],
  description: {
    is: 'Parent pointers, and a row for each pair of a node and a directory above it.',
    lacks: 'Paths are recursive queries, as in (a). A create beside a move can get the old ancestors.',
  },
  setUp: (client) => createTables(client, { schema: SCHEMA, more: TABLES }),
  load: (client) => loadNodes(client, SCHEMA),
  ...common,
  ...pointers,
  subtreeSum,
  totals: subtreeSum,
  totalsList: (directories) =>
    query(
      `select c.ancestor_id as node_id, ${SUMS}
       from ${SCHEMA}.closure c
       join ${SCHEMA}.nodes n on n.id = c.descendant_id
       where c.ancestor_id = any ($1::bigint[]) and c.depth > 0 and n.deleted_at is null
       group by c.ancestor_id
       order by c.ancestor_id`,
      directories.map(({ id }) => id),
    ),
  move: (node, newParent, newName) =>
    query(
      `update ${SCHEMA}.nodes n
       set parent_id = $2, name = $3
       where n.id = $1
         and n.deleted_at is null
         and not exists (select from ${SCHEMA}.closure c where c.ancestor_id = $1 and c.descendant_id = $2)
         and exists (select from ${SCHEMA}.nodes p where p.id = $2 and p.kind = 'directory' and p.deleted_at is null)`,
      node.id,
      newParent.id,
      newName,
    ),
  deleteTree: (top) =>
    query(
      `update ${SCHEMA}.nodes n
       set state = 'deleted', deleted_at = statement_timestamp()
       from ${SCHEMA}.closure c
       where c.ancestor_id = $1 and n.id = c.descendant_id and n.deleted_at is null`,
      top.id,
    ),
  restoreTree: (top) =>
    query(
      `update ${SCHEMA}.nodes n
       set state = 'active', deleted_at = null
       from ${SCHEMA}.closure c
       where c.ancestor_id = $1 and n.id = c.descendant_id
         and n.deleted_at = (select t.deleted_at from ${SCHEMA}.nodes t where t.id = $1)`,
      top.id,
    ),
  wrongRows: (mountId) =>
    query(
      `with recursive climbed (ancestor_id, descendant_id) as (
         select n.id, n.id from ${SCHEMA}.nodes n where n.mount_id = $1
         union
         select p.parent_id, c.descendant_id
         from climbed c
         join ${SCHEMA}.nodes p on p.id = c.ancestor_id
         where p.parent_id is not null
       ),
       kept as (
         select c.ancestor_id, c.descendant_id
         from ${SCHEMA}.closure c
         join ${SCHEMA}.nodes n on n.id = c.descendant_id
         where n.mount_id = $1
       )
       select count(distinct w.descendant_id) as wrong
       from (
         (select * from climbed except select * from kept)
         union all
         (select * from kept except select * from climbed)
       ) w`,
      mountId,
    ),
};
