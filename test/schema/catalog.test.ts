import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();

/** Functions that run as the owner although they are no trigger functions: they write, or read, what no level may. */
const AS_OWNER = [
  ...['apply_scan', 'begin_scan', 'cancel_scan', 'check_sequences', 'copy_nodes', 'delete_mount'],
  ...['expire_scans', 'fold_rollups', 'merge_nodes', 'mount_place', 'prune_history', 'prune_journal'],
  ...['purge_deleted', 'record_entries', 'record_sightings', 'record_write_sighting', 'recount_rollups'],
  ...['restore_tree', 'scan_differences', 'sync_nodes'],
];

/** Procedures that commit cannot pin a search_path; a pinned one would keep the others from being inlined. */
const UNPINNED = [
  ...[
    'backfill',
    'cancel_move',
    'child_path',
    'erase_mount',
    'has_long_values',
    'has_secret',
    'import_nodes',
    'location_uri',
  ],
  ...['node_location', 'percent_encode', 'prepare_moves', 'shorten_path'],
];

/** These return null for a null argument, without being run. */
const STRICT = ['canonical_path', 'find_secret', 'holds_secret', 'is_small_json', 'percent_encode'];

test('PUBLIC has no right to execute or read anything', async () => {
  // The server creates the constructors of a range type with the type. pg_dump leaves out their rights, so revoked ones
  // would return with a restore. They read nothing, and PUBLIC has no usage on the schema.
  const open = await database().query(
    `select p.oid::regprocedure::text as object from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace and has_function_privilege('public', p.oid, 'execute')
       and not exists (
         select from pg_depend d
         where (d.classid, d.objid, d.refclassid, d.deptype) = ('pg_proc'::regclass, p.oid, 'pg_type'::regclass, 'i')
       )
     union all
     select c.oid::regclass::text from pg_class c
     where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v', 'S')
       and exists (select from aclexplode(c.relacl) a where a.grantee = 0)
     union all
     select 'schema filestore' where has_schema_privilege('public', 'filestore', 'usage')`,
  );
  expect(open).toEqual([]);
});

test.each([
  ['run as the owner, besides triggers', `p.prosecdef and p.prorettype <> 'trigger'::regtype`, AS_OWNER],
  [
    'do not pin their search_path',
    `'search_path=pg_catalog, pg_temp' <> all (coalesce(p.proconfig, '{}'))`,
    UNPINNED,
  ],
  ['return null for null without being run', 'p.proisstrict', STRICT],
])('the functions that %s are known', async (_, condition, names) => {
  const found = await database().query<{ name: string }>(
    `select p.proname as name from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace and p.prosrc !~ '^(range|multirange)_constructor' and (${condition})
     order by p.proname collate "C"`,
  );
  expect(found.map(({ name }) => name)).toEqual(names);
});

test('names of constraints, indexes and triggers begin with their table', async () => {
  const strange = await database().query(
    `select c.relname as table, o.name
     from pg_class c
     cross join lateral (
       select conname as name from pg_constraint where conrelid = c.oid and contype <> 'n'
       union all select tgname from pg_trigger where tgrelid = c.oid and not tgisinternal
       union all select indexrelid::regclass::text from pg_index where indrelid = c.oid
     ) o
     where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r'
       and not starts_with(replace(o.name, 'filestore.', ''), c.relname || '_')`,
  );
  expect(strange).toEqual([]);
});

test('the triggers that count and keep versions run at every update of a node, whatever columns it sets', async () => {
  const triggers = await database().query(
    `select t.tgname as name, t.tgattr::text as columns, t.tgqual as condition
     from pg_trigger t
     where t.tgrelid = 'filestore.nodes'::regclass and t.tgname in ('nodes_record_update', 'nodes_set_version')
     order by t.tgname`,
  );
  expect(triggers).toEqual(
    ['nodes_record_update', 'nodes_set_version'].map((name) => ({ name, columns: '', condition: null })),
  );
});

test('the triggers that keep the place, state and fixed columns of a node run for each column that is no content', async () => {
  const [triggers] = await database().query(
    `select bool_or(t.tgqual is not null) as conditional, array_agg(a.attname::text order by a.attnum) as columns,
       (select array_agg(c.attname::text order by c.attnum) from pg_attribute c
        where c.attrelid = 'filestore.nodes'::regclass and c.attnum > 0 and not c.attisdropped
          and c.attname <> all (filestore.content_columns())) as others
     from pg_trigger t join pg_attribute a on a.attrelid = t.tgrelid and a.attnum = any (t.tgattr)
     where t.tgrelid = 'filestore.nodes'::regclass and t.tgname in ('nodes_keep_columns', 'nodes_prepare_update')`,
  );
  expect(triggers).toMatchObject({ conditional: false, columns: triggers?.others });
});

test('snapshots has three extra columns, and then those of nodes in the same order', async () => {
  const columnsOf = async (table: string) =>
    (
      await database().query(
        `select a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attcollation::regcollation as column
         from pg_attribute a
         where a.attrelid = ('filestore.' || $1)::regclass and a.attnum > 0 and not a.attisdropped
         order by a.attnum`,
        [table],
      )
    ).map(({ column }) => column);
  expect((await columnsOf('snapshots')).slice(3)).toEqual(await columnsOf('nodes'));
});

test('no table has a generated column, since the server reads its expression at every statement', async () => {
  expect(
    await database().query(
      `select a.attrelid::regclass::text as table, a.attname as name
       from pg_attribute a join pg_class c on c.oid = a.attrelid
       where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r' and a.attgenerated <> ''`,
    ),
  ).toEqual([]);
});

test("every index orders text by its bytes, since a new version of a language's order would damage it", async () => {
  expect(
    await database().query(
      `select i.indexrelid::regclass::text as index, o.id::regcollation::text as name
       from pg_index i
       join pg_class c on c.oid = i.indexrelid
       cross join unnest(i.indcollation::oid[]) as o (id)
       where c.relnamespace = 'filestore'::regnamespace and o.id not in (0, '"C"'::regcollation)
       union all
       select r.rngtypid::regtype::text, r.rngcollation::regcollation::text
       from pg_range r
       join pg_type t on t.oid = r.rngtypid
       where t.typnamespace = 'filestore'::regnamespace and r.rngcollation not in (0, '"C"'::regcollation)`,
    ),
  ).toEqual([]);
});

test('comments name only objects that exist', async () => {
  expect(
    await database().query(
      `select distinct named.match[1] as name, d.description as comment
       from pg_description d
       cross join regexp_matches(d.description, '(?<!setting )filestore[.]([a-z_]+)', 'g') as named (match)
       where not exists (
         select proname from pg_proc where pronamespace = 'filestore'::regnamespace and proname = named.match[1]
         union all select relname from pg_class where relnamespace = 'filestore'::regnamespace and relname = named.match[1]
       )`,
    ),
  ).toEqual([]);
});

test('every foreign key has an index on its referencing columns', async () => {
  const rows = await database().query(
    `select c.conname
     from pg_constraint c
     where c.contype = 'f' and c.connamespace = 'filestore'::regnamespace
       and not exists (
         select from pg_index i
         where i.indrelid = c.conrelid and i.indisvalid and i.indkey[0] = any (c.conkey)
       )`,
  );
  expect(rows).toEqual([]);
});
