import { type Design, type Place, query } from './design.ts';
import { FOUND, SUMS } from './table-definitions.ts';

/** Statements of designs that find a tree by following parent_id. */
export function parentStatements(schema: string) {
  // Names are compared one level at a time, each by the unique index of (parent_id, name).
  const walk = (mountId: string, path: string, alive: string, found: string) =>
    query(
      `with recursive walk (id, step) as (
         select n.id, 0
         from ${schema}.nodes n
         where n.mount_id = $1 and n.parent_id is null
         union all
         select n.id, w.step + 1
         from walk w
         join ${schema}.nodes n on n.parent_id = w.id and n.name = ($2::text[])[w.step + 1] ${alive}
       )
       select ${FOUND}
       from walk w
       join ${schema}.nodes n on n.id = w.id
       where w.step = cardinality($2::text[])
       ${found}`,
      mountId,
      path === '' ? [] : path.split('/'),
    );
  return {
    resolve: (mountId: string, path: string) => walk(mountId, path, 'and n.deleted_at is null', ''),
    resolveDeleted: (mountId: string, path: string) =>
      walk(mountId, path, '', 'order by n.deleted_at is null desc, n.deleted_at desc, n.id desc limit 1'),
    subtreeSum: (top: Place) =>
      query(
        `with recursive below (id, kind, size_bytes) as (
           select c.id, c.kind, c.size_bytes
           from ${schema}.nodes c
           where c.parent_id = $1 and c.deleted_at is null
           union all
           select c.id, c.kind, c.size_bytes
           from below b
           join ${schema}.nodes c on c.parent_id = b.id and c.deleted_at is null
           where b.kind = 'directory'
         )
         select ${SUMS} from below n`,
        top.id,
      ),
    totalsList: (directories: readonly Place[]) =>
      query(
        `with recursive below (top, id, kind, size_bytes) as (
           select g.id, c.id, c.kind, c.size_bytes
           from unnest($1::bigint[]) as g (id)
           join ${schema}.nodes c on c.parent_id = g.id and c.deleted_at is null
           union all
           select b.top, c.id, c.kind, c.size_bytes
           from below b
           join ${schema}.nodes c on c.parent_id = b.id and c.deleted_at is null
           where b.kind = 'directory'
         )
         select n.top as node_id, ${SUMS} from below n group by n.top order by n.top`,
        directories.map(({ id }) => id),
      ),
    move: (node: Place, newParent: Place, newName: string) =>
      query(
        `with recursive above (id, parent_id) as (
           select n.id, n.parent_id from ${schema}.nodes n where n.id = $2
           union all
           select n.id, n.parent_id from above a join ${schema}.nodes n on n.id = a.parent_id
         )
         update ${schema}.nodes n
         set parent_id = $2, name = $3
         where n.id = $1
           and n.deleted_at is null
           and not exists (select from above a where a.id = $1)
           and exists (select from ${schema}.nodes p where p.id = $2 and p.kind = 'directory' and p.deleted_at is null)`,
        node.id,
        newParent.id,
        newName,
      ),
    deleteTree: (top: Place) =>
      query(
        `${treeBelow(schema, 'c.deleted_at is null')}
         update ${schema}.nodes n
         set state = 'deleted', deleted_at = statement_timestamp()
         from below b
         where n.id = b.id and n.deleted_at is null`,
        top.id,
      ),
    restoreTree: (top: Place) =>
      query(
        `${treeBelow(schema, `c.deleted_at = (select t.deleted_at from ${schema}.nodes t where t.id = $1)`)}
         update ${schema}.nodes n
         set state = 'active', deleted_at = null
         from below b
         where n.id = b.id`,
        top.id,
      ),
    copyTree: (top: Place, newParentId: string, newName: string) =>
      query(
        `${treeBelow(schema, 'c.deleted_at is null')},
         source as materialized (
           select nextval(pg_get_serial_sequence('${schema}.nodes', 'id')) as new_id, n.*
           from below b
           join ${schema}.nodes n on n.id = b.id
         )
         insert into ${schema}.nodes (id, mount_id, parent_id, name, kind, size_bytes, checksum, metadata, state, last_modified_at)
         select s.new_id, d.mount_id, coalesce(p.new_id, d.id), case s.id when $1 then $3 else s.name end,
           s.kind, s.size_bytes, s.checksum, s.metadata, s.state, s.last_modified_at
         from source s
         cross join (select n.id, n.mount_id from ${schema}.nodes n where n.id = $2 and n.deleted_at is null) d
         left join source p on p.id = s.parent_id
         order by s.new_id`,
        top.id,
        newParentId,
        newName,
      ),
  } satisfies Partial<Design>;
}

const treeBelow = (schema: string, condition: string) => `
  with recursive below (id, kind) as (
    select t.id, t.kind
    from ${schema}.nodes t
    where t.id = $1
    union all
    select c.id, c.kind
    from below b
    join ${schema}.nodes c on c.parent_id = b.id and ${condition}
    where b.kind = 'directory'
  )`;
