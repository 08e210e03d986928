import { checksumOf, commonStatements, createTables, FOUND, loadNodes, SUMS } from '../alternative-tables.ts';
import { type Design, type NewFile, type Place, query } from '../design.ts';

const SCHEMA = 'full_path';

// In a database with a linguistic collation, ranges of paths need the operators of text_pattern_ops: '/' and '0' are no
// neighbours there. The unique index has that class, so it serves equality and ranges.
// With the default of 100 buckets, an estimate of a small tree depends on the sample of the last analyze, and so does the
// plan of a copy.
const TABLES = `
  alter table ${SCHEMA}.nodes alter column path set statistics 1000;
  create unique index on ${SCHEMA}.nodes (mount_id, path text_pattern_ops) where deleted_at is null;
  create index on ${SCHEMA}.nodes (mount_id, path text_pattern_ops, deleted_at) where deleted_at is not null;

  create function ${SCHEMA}.set_path() returns trigger language plpgsql as $$
  declare
    parent record;
  begin
    if new.parent_id is null then
      new.path := '';
    elsif new.path is null or tg_op = 'UPDATE' then
      select p.mount_id, p.path into parent
      from ${SCHEMA}.nodes p
      where p.id = new.parent_id and p.kind = 'directory' and p.deleted_at is null;
      if not found then
        raise exception 'directory % is not there', new.parent_id;
      end if;
      new.mount_id := parent.mount_id;
      new.path     := case parent.path when '' then '' else parent.path || '/' end || new.name;
    end if;
    return new;
  end $$;
  create trigger nodes_set_path before insert on ${SCHEMA}.nodes
    for each row execute function ${SCHEMA}.set_path();
  create trigger nodes_set_path_again before update of parent_id, name on ${SCHEMA}.nodes
    for each row execute function ${SCHEMA}.set_path();

  create function ${SCHEMA}.carry_path() returns trigger language plpgsql as $$
  begin
    update ${SCHEMA}.nodes
    set path = new.path || substr(path, length(old.path) + 1)
    where mount_id = new.mount_id
      and deleted_at is null
      and path ~>=~ (old.path || '/') and path ~<~ (old.path || '0');
    return null;
  end $$;
  create trigger nodes_carry_path after update of parent_id, name on ${SCHEMA}.nodes
    for each row when (new.kind = 'directory' and new.path <> old.path) execute function ${SCHEMA}.carry_path();`;

const BELOW = "n.mount_id = $1 and n.path ~>=~ ($2 || '/') and n.path ~<~ ($2 || '0')";
/** The same with the top itself; one range, so that one scan of the index is enough. */
const TREE =
  "n.mount_id = $1 and n.path ~>=~ $2 and n.path ~<~ ($2 || '0') and (n.path = $2 or n.path ~>=~ ($2 || '/'))";

const subtreeSum = (top: Place) =>
  top.path === ''
    ? query(
        `select ${SUMS} from ${SCHEMA}.nodes n where n.mount_id = $1 and n.deleted_at is null and n.path <> ''`,
        top.mountId,
      )
    : query(
        `select ${SUMS} from ${SCHEMA}.nodes n where ${BELOW} and n.deleted_at is null`,
        top.mountId,
        top.path,
      );

const common = commonStatements(SCHEMA);

export const design: Design = {
  key: 'b',
  title: '(b) full path',
  color: '#009e73',
  schema: SCHEMA,
  specialities: ['resolve'],
  description: {
    is: 'Each row has its `path`, under a unique index. Triggers on rows set it, and carry it below a directory that moves.',
    lacks: 'Nothing proves a path. A create beside a move can keep the old one.',
  },
  setUp: (client) =>
    createTables(client, {
      schema: SCHEMA,
      collation: '',
      columns: ['path text not null'],
      versioned: ['path'],
      children: 'parent_id',
      more: TABLES,
    }),
  load: (client) => loadNodes(client, SCHEMA, ', path'),
  ...common,
  resolve: (mountId, path) =>
    query(
      `select ${FOUND} from ${SCHEMA}.nodes n where n.mount_id = $1 and n.path = $2 and n.deleted_at is null`,
      mountId,
      path,
    ),
  // Two lookups in two partial indexes. One condition for both would read the whole table.
  resolveDeleted: (mountId, path) =>
    query(
      `select ${FOUND}
       from (
         (select n.* from ${SCHEMA}.nodes n where n.mount_id = $1 and n.path = $2 and n.deleted_at is null)
         union all
         (
           select n.*
           from ${SCHEMA}.nodes n
           where n.mount_id = $1 and n.path = $2 and n.deleted_at is not null
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
  totalsList: (directories) =>
    query(
      `select t.id as node_id, s.*
       from ${SCHEMA}.nodes t
       cross join lateral (
         select ${SUMS}
         from ${SCHEMA}.nodes n
         where n.mount_id = t.mount_id and n.deleted_at is null
           and n.path ~>=~ (t.path || '/') and n.path ~<~ (t.path || '0')
       ) s
       where t.id = any ($1::bigint[])
       order by t.id`,
      directories.map(({ id }) => id),
    ),
  // The trigger looks the parent up.
  create: ({ mountId, parentId, name, sizeBytes }: NewFile) => `
    insert into ${SCHEMA}.nodes (mount_id, parent_id, name, kind, size_bytes, checksum, last_modified_at)
    values (${mountId}, ${parentId}, ${name}, 'file', ${sizeBytes}, ${checksumOf(name)}, now())`,
  createBatch: (files) =>
    query(
      `insert into ${SCHEMA}.nodes (mount_id, parent_id, name, kind, size_bytes, checksum, metadata, last_modified_at)
       select 1, f.parent_id, f.name, 'file', f.size_bytes, f.checksum, f.metadata, now()
       from jsonb_to_recordset($1::jsonb) f (parent_id bigint, name text, size_bytes bigint, checksum text, metadata jsonb)`,
      files,
    ),
  bulkInsert: (label) =>
    query(
      `insert into ${SCHEMA}.nodes
         (mount_id, parent_id, name, path, kind, size_bytes, checksum, metadata, last_modified_at)
       select mount_id, parent_id, name || $1, path || $1, 'file', size_bytes, checksum, metadata, last_modified_at
       from bench.more`,
      label,
    ),
  move: (node, newParent, newName) =>
    query(
      `update ${SCHEMA}.nodes n
       set parent_id = $2, name = $3
       where n.id = $1
         and n.deleted_at is null
         and not exists (
           select from ${SCHEMA}.nodes p
           where p.id = $2 and (p.path = n.path or starts_with(p.path, n.path || '/'))
         )`,
      node.id,
      newParent.id,
      newName,
    ),
  deleteTree: (top) =>
    query(
      `update ${SCHEMA}.nodes n
       set state = 'deleted', deleted_at = statement_timestamp()
       where ${TREE} and n.deleted_at is null`,
      top.mountId,
      top.path,
    ),
  restoreTree: (top) =>
    query(
      `update ${SCHEMA}.nodes n
       set state = 'active', deleted_at = null
       where ${TREE} and n.deleted_at = (select t.deleted_at from ${SCHEMA}.nodes t where t.id = $3)`,
      top.mountId,
      top.path,
      top.id,
    ),
  copyTree: (top, newParentId, newName) =>
    query(
      `with source as materialized (
         select nextval(pg_get_serial_sequence('${SCHEMA}.nodes', 'id')) as new_id, n.*
         from ${SCHEMA}.nodes n
         where ${TREE} and n.deleted_at is null
       )
       insert into ${SCHEMA}.nodes
         (id, mount_id, parent_id, name, path, kind, size_bytes, checksum, metadata, state, last_modified_at)
       select s.new_id, d.mount_id, coalesce(p.new_id, d.id), case s.path when $2 then $4 else s.name end,
         case d.path when '' then '' else d.path || '/' end || $4 || substr(s.path, length($2) + 1),
         s.kind, s.size_bytes, s.checksum, s.metadata, s.state, s.last_modified_at
       from source s
       cross join (select n.* from ${SCHEMA}.nodes n where n.id = $3 and n.deleted_at is null) d
       left join source p on p.id = s.parent_id`,
      top.mountId,
      top.path,
      newParentId,
      newName,
    ),
  wrongRows: (mountId) =>
    query(
      `select count(*) as wrong
       from ${SCHEMA}.nodes n
       join ${SCHEMA}.nodes p on p.id = n.parent_id
       where n.mount_id = $1 and n.deleted_at is null
         and n.path <> case p.path when '' then '' else p.path || '/' end || n.name`,
      mountId,
    ),
};
