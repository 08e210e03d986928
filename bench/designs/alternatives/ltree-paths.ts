import type { Client } from 'pg';
import { checksumOf, commonStatements, createTables, FOUND, loadNodes, SUMS } from '../alternative-tables.ts';
import { type Design, type NewFile, type Place, query } from '../design.ts';

const SCHEMA = 'ltree_paths';

// A label holds letters, digits and underscores only, so names are encoded: the usual characters one by one, any other
// name as hexadecimal digits.
const FUNCTIONS = `
  create function ${SCHEMA}.label(name text) returns text
  language sql immutable parallel safe
  return case
    when name ~ '^[A-Za-z0-9_.-]+$' then replace(replace(replace(name, '_', '_5f'), '-', '_2d'), '.', '_2e')
    else '__' || encode(convert_to(name, 'UTF8'), 'hex')
  end;

  create function ${SCHEMA}.encoded(path text) returns ltree
  language sql immutable parallel safe
  return case
    when path ~ '^[A-Za-z0-9_./-]*$'
    then replace(replace(replace(replace(path, '_', '_5f'), '-', '_2d'), '.', '_2e'), '/', '.')::ltree
    else (
      select string_agg(${SCHEMA}.label(part), '.' order by place)
      from string_to_table(path, '/') with ordinality as p (part, place)
    )::ltree
  end;`;

const TABLES = `
  create unique index on ${SCHEMA}.nodes (mount_id, path) where deleted_at is null;
  create index on ${SCHEMA}.nodes (mount_id, path, deleted_at) where deleted_at is not null;
  create index on ${SCHEMA}.nodes using gist (path gist_ltree_ops (siglen = 100));

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
      new.path     := parent.path || ${SCHEMA}.label(new.name)::ltree;
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
    set path = new.path || subpath(path, nlevel(old.path))
    where mount_id = new.mount_id and deleted_at is null and path <@ old.path and path <> old.path;
    return null;
  end $$;
  create trigger nodes_carry_path after update of parent_id, name on ${SCHEMA}.nodes
    for each row when (new.kind = 'directory' and new.path <> old.path) execute function ${SCHEMA}.carry_path();`;

/** In a subquery, so that it is computed once and not for each row. */
const GIVEN = `(select ${SCHEMA}.encoded($2))`;
const TREE = `n.mount_id = $1 and n.path <@ ${GIVEN}`;

const subtreeSum = (top: Place) =>
  top.path === ''
    ? query(
        `select ${SUMS} from ${SCHEMA}.nodes n where n.mount_id = $1 and n.deleted_at is null and n.path <> ''`,
        top.mountId,
      )
    : query(
        `select ${SUMS}
     from ${SCHEMA}.nodes n
     where ${TREE} and n.path <> ${GIVEN} and n.deleted_at is null`,
        top.mountId,
        top.path,
      );

const common = commonStatements(SCHEMA);

export const design: Design = {
  key: 'c',
  title: '(c) ltree',
  color: '#cc79a7',
  schema: SCHEMA,
  specialities: ['subtreeSum'],
  description: {
    is: 'The path is an `ltree`, with a unique index and a GiST index. Names are encoded, since labels allow only letters, digits and `_`.',
    lacks:
      'Paths cannot be read or sorted as people write them. A label of more than 1000 characters is refused (255 before PostgreSQL 16). Nothing proves a path.',
  },
  async unavailable(client: Client) {
    const { rows } = await client.query("select from pg_available_extensions where name = 'ltree'");
    return rows.length === 0 ? 'the server has no extension ltree' : null;
  },
  async setUp(client) {
    await client.query('create extension if not exists ltree');
    await createTables(client, {
      schema: SCHEMA,
      collation: 'collate "C"',
      columns: ['path ltree not null'],
      versioned: ['path'],
      children: 'parent_id',
      more: FUNCTIONS + TABLES,
    });
  },
  load: (client) => loadNodes(client, SCHEMA, ', path', `, ${SCHEMA}.encoded(path)`),
  ...common,
  resolve: (mountId, path) =>
    query(
      `select ${FOUND}
       from ${SCHEMA}.nodes n
       where n.mount_id = $1 and n.path = ${GIVEN} and n.deleted_at is null`,
      mountId,
      path,
    ),
  // Two lookups in two partial indexes. One condition for both would read the whole table.
  resolveDeleted: (mountId, path) =>
    query(
      `select ${FOUND}
       from (
         (select n.* from ${SCHEMA}.nodes n where n.mount_id = $1 and n.path = ${GIVEN} and n.deleted_at is null)
         union all
         (
           select n.*
           from ${SCHEMA}.nodes n
           where n.mount_id = $1 and n.path = ${GIVEN} and n.deleted_at is not null
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
         where n.mount_id = t.mount_id and n.deleted_at is null and n.path <@ t.path and n.path <> t.path
       ) s
       where t.id = any ($1::bigint[])
       order by t.id`,
      directories.map(({ id }) => id),
    ),
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
       select mount_id, parent_id, name || $1, ${SCHEMA}.encoded(path || $1), 'file', size_bytes, checksum, metadata,
         last_modified_at
       from bench.more`,
      label,
    ),
  move: (node, newParent, newName) =>
    query(
      `update ${SCHEMA}.nodes n
       set parent_id = $2, name = $3
       where n.id = $1
         and n.deleted_at is null
         and not exists (select from ${SCHEMA}.nodes p where p.id = $2 and p.path <@ n.path)`,
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
       select s.new_id, d.mount_id, coalesce(p.new_id, d.id), case when t.is_top then $4 else s.name end,
         d.path || ${SCHEMA}.label($4)::ltree || case when t.is_top then ''::ltree else subpath(s.path, nlevel(${GIVEN})) end,
         s.kind, s.size_bytes, s.checksum, s.metadata, s.state, s.last_modified_at
       from source s
       cross join lateral (select s.path = ${GIVEN} as is_top) t
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
       where n.mount_id = $1 and n.deleted_at is null and n.path <> p.path || ${SCHEMA}.label(n.name)::ltree`,
      mountId,
    ),
};
