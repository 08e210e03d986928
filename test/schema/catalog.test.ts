import { expect, test } from 'vitest';
import { databaseForFile } from '../support/database.ts';

const database = databaseForFile();

test('PUBLIC may execute and read nothing', async () => {
  const open = await database().query(
    `select p.oid::regprocedure::text as object from pg_proc p
     where p.pronamespace = 'filestore'::regnamespace and has_function_privilege('public', p.oid, 'execute')
     union all
     select c.oid::regclass::text from pg_class c
     where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v', 'S')
       and exists (select from aclexplode(c.relacl) a where a.grantee = 0)
     union all
     select 'schema filestore' where has_schema_privilege('public', 'filestore', 'usage')`,
  );
  expect(open).toEqual([]);
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

test('every column of nodes that can be set, but for the heartbeats, is prepared and kept as a version', async () => {
  const triggers = await database().query(
    `select t.tgname as name,
            (select array_agg(a.attname::text order by a.attnum)
             from pg_attribute a where a.attrelid = t.tgrelid and a.attnum = any (t.tgattr)) as columns
     from pg_trigger t
     where t.tgrelid = 'filestore.nodes'::regclass and t.tgname in ('nodes_prepare_update', 'nodes_record_version')
     order by t.tgname`,
  );
  const [settable] = await database().query<{ columns: readonly string[] }>(
    `select array_agg(a.attname::text order by a.attnum) as columns
     from pg_attribute a
     where a.attrelid = 'filestore.nodes'::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
       and a.attname not in ('last_seen_at', 'last_reconciled_at')`,
  );
  expect(triggers).toEqual(
    ['nodes_prepare_update', 'nodes_record_version'].map((name) => ({ name, columns: settable?.columns })),
  );
});
