import { type Design, type NewDirectory, type NewFile, type Place, query } from './design.ts';
import { checksumOf, FOUND, SUMS } from './table-definitions.ts';

/** How a design writes paths in its column `path`. Arguments and results are SQL expressions. */
export interface PathColumn {
  readonly schema: string;
  /** The path of a file or directory in a directory. */
  readonly child: (parentPath: string, name: string) => string;
  /** A path that is given as text. */
  readonly ofText: (text: string) => string;
  /** The path $2 of a statement. */
  readonly given: string;
  readonly isBelow: (path: string, top: string) => string;
  /** Below the top, or the top itself. */
  readonly isIn: (path: string, top: string) => string;
  /** The path of a node below a directory after that directory has moved. */
  readonly carried: (newTop: string, path: string, oldTop: string) => string;
}

/** Functions and triggers that set the path of a new or moved node, and carry it below a directory that moves. */
export const pathTriggers = ({ schema, child, isBelow, carried }: PathColumn) => `
  create function ${schema}.set_path() returns trigger language plpgsql as $$
  declare
    parent record;
  begin
    if new.parent_id is null then
      new.path := '';
    elsif new.path is null or tg_op = 'UPDATE' then
      select p.mount_id, p.path into parent
      from ${schema}.nodes p
      where p.id = new.parent_id and p.kind = 'directory' and p.deleted_at is null;
      if not found then
        raise exception 'directory % is not there', new.parent_id;
      end if;
      new.mount_id := parent.mount_id;
      new.path     := ${child('parent.path', 'new.name')};
    end if;
    return new;
  end $$;
  create trigger nodes_set_path before insert on ${schema}.nodes
    for each row execute function ${schema}.set_path();
  create trigger nodes_set_path_again before update of parent_id, name on ${schema}.nodes
    for each row execute function ${schema}.set_path();

  create function ${schema}.carry_path() returns trigger language plpgsql as $$
  begin
    update ${schema}.nodes
    set path = ${carried('new.path', 'path', 'old.path')}
    where mount_id = new.mount_id and deleted_at is null and ${isBelow('path', 'old.path')};
    return null;
  end $$;
  create trigger nodes_carry_path after update of parent_id, name on ${schema}.nodes
    for each row when (new.kind = 'directory' and new.path <> old.path) execute function ${schema}.carry_path();`;

/** Statements of designs that find a node and a tree by the path in each row. */
export function pathStatements(column: PathColumn) {
  const { schema, child, ofText, given, isBelow, isIn, carried } = column;
  const tree = `n.mount_id = $1 and ${isIn('n.path', given)}`;
  const subtreeSum = (top: Place) =>
    top.path === ''
      ? query(
          `select ${SUMS} from ${schema}.nodes n where n.mount_id = $1 and n.deleted_at is null and n.path <> ''`,
          top.mountId,
        )
      : query(
          `select ${SUMS}
           from ${schema}.nodes n
           where n.mount_id = $1 and ${isBelow('n.path', given)} and n.deleted_at is null`,
          top.mountId,
          top.path,
        );
  return {
    resolve: (mountId: string, path: string) =>
      query(
        `select ${FOUND} from ${schema}.nodes n where n.mount_id = $1 and n.path = ${given} and n.deleted_at is null`,
        mountId,
        path,
      ),
    // Two lookups in two partial indexes. One condition for both would read the whole table.
    resolveDeleted: (mountId: string, path: string) =>
      query(
        `select ${FOUND}
         from (
           (select n.* from ${schema}.nodes n where n.mount_id = $1 and n.path = ${given} and n.deleted_at is null)
           union all
           (
             select n.*
             from ${schema}.nodes n
             where n.mount_id = $1 and n.path = ${given} and n.deleted_at is not null
             order by n.deleted_at desc, n.id desc
             limit 1
           )
         ) n
         order by n.deleted_at is null desc
         limit 1`,
        mountId,
        path,
      ),
    subtreeSum,
    totals: subtreeSum,
    totalsList: (directories: readonly Place[]) =>
      query(
        `select t.id as node_id, s.*
         from ${schema}.nodes t
         cross join lateral (
           select ${SUMS}
           from ${schema}.nodes n
           where n.mount_id = t.mount_id and n.deleted_at is null and ${isBelow('n.path', 't.path')}
         ) s
         where t.id = any ($1::bigint[])
         order by t.id`,
        directories.map(({ id }) => id),
      ),
    // The trigger looks the parent up.
    create: ({ mountId, parentId, name, sizeBytes }: NewFile) => `
      insert into ${schema}.nodes (mount_id, parent_id, name, kind, size_bytes, checksum, last_modified_at)
      values (${mountId}, ${parentId}, ${name}, 'file', ${sizeBytes}, ${checksumOf(name)}, now())`,
    createDirectory: ({ mountId, parentId, name }: NewDirectory) => `
      insert into ${schema}.nodes (mount_id, parent_id, name, kind)
      values (${mountId}, ${parentId}, ${name}, 'directory')`,
    createBatch: (files: string) =>
      query(
        `insert into ${schema}.nodes (mount_id, parent_id, name, kind, size_bytes, checksum, metadata, last_modified_at)
         select 1, f.parent_id, f.name, 'file', f.size_bytes, f.checksum, f.metadata, now()
         from jsonb_to_recordset($1::jsonb) f (parent_id bigint, name text, size_bytes bigint, checksum text, metadata jsonb)`,
        files,
      ),
    bulkInsert: (label: string) =>
      query(
        `insert into ${schema}.nodes
           (mount_id, parent_id, name, path, kind, size_bytes, checksum, metadata, last_modified_at)
         select mount_id, parent_id, name || $1, ${ofText('path || $1')}, 'file', size_bytes, checksum, metadata,
           last_modified_at
         from bench.more`,
        label,
      ),
    move: (node: Place, newParent: Place, newName: string) =>
      query(
        `update ${schema}.nodes n
         set parent_id = $2, name = $3
         where n.id = $1
           and n.deleted_at is null
           and not exists (select from ${schema}.nodes p where p.id = $2 and ${isIn('p.path', 'n.path')})`,
        node.id,
        newParent.id,
        newName,
      ),
    deleteTree: (top: Place) =>
      query(
        `update ${schema}.nodes n
         set state = 'deleted', deleted_at = statement_timestamp()
         where ${tree} and n.deleted_at is null`,
        top.mountId,
        top.path,
      ),
    restoreTree: (top: Place) =>
      query(
        `update ${schema}.nodes n
         set state = 'active', deleted_at = null
         where ${tree} and n.deleted_at = (select t.deleted_at from ${schema}.nodes t where t.id = $3)`,
        top.mountId,
        top.path,
        top.id,
      ),
    copyTree: (top: Place, newParentId: string, newName: string) =>
      query(
        `with source as materialized (
           select nextval(pg_get_serial_sequence('${schema}.nodes', 'id')) as new_id, n.*
           from ${schema}.nodes n
           where ${tree} and n.deleted_at is null
         )
         insert into ${schema}.nodes
           (id, mount_id, parent_id, name, path, kind, size_bytes, checksum, metadata, state, last_modified_at)
         select s.new_id, d.mount_id, coalesce(p.new_id, d.id), case when t.is_top then $4 else s.name end,
           case when t.is_top then d.new_path else ${carried('d.new_path', 's.path', given)} end,
           s.kind, s.size_bytes, s.checksum, s.metadata, s.state, s.last_modified_at
         from source s
         cross join lateral (select s.path = ${given} as is_top) t
         cross join (
           select n.id, n.mount_id, ${child('n.path', '$4')} as new_path
           from ${schema}.nodes n
           where n.id = $3 and n.deleted_at is null
         ) d
         left join source p on p.id = s.parent_id`,
        top.mountId,
        top.path,
        newParentId,
        newName,
      ),
    wrongRows: (mountId: string) =>
      query(
        `select count(*) as wrong
         from ${schema}.nodes n
         join ${schema}.nodes p on p.id = n.parent_id
         where n.mount_id = $1 and n.deleted_at is null and n.path <> ${child('p.path', 'n.name')}`,
        mountId,
      ),
  } satisfies Partial<Design>;
}
