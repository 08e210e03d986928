import { describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import type { LiveCatalog } from '../../src/catalog/model.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { runMigrations } from '../../src/index.ts';
import { changeableSettings } from '../support/databases/database-settings.ts';
import {
  createDatabase,
  databaseForEachTest,
  databaseForFile,
  type TestDatabase,
} from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

async function readFrom(source: TestDatabase): Promise<LiveCatalog> {
  return readCatalog(await source.connect());
}

describe('the model of a migrated database', () => {
  test('is the same when the migrations were applied twice', async () => {
    const again = await createDatabase();
    try {
      await again.query('delete from graphile_migrate.migrations');
      const { applied } = await runMigrations({ connection: connectionTo(again.url) });
      expect(applied.length).toBeGreaterThan(0);
      expect(await readFrom(again)).toEqual(await readFrom(database()));
    } finally {
      await again.drop();
    }
  });

  test('is the same for a role without any privilege', async () => {
    const stranger = await createRole();
    const client = await stranger.connect();
    await expect(client.query('select from filestore.nodes')).rejects.toThrow('permission denied');
    expect(await readCatalog(client)).toEqual(await readFrom(database()));
  });

  test('has every object that the catalog lists', async () => {
    const { objects } = await readFrom(database());
    const all = objects.flatMap((object) => [object, ...object.parts]);
    const count = (...kinds: readonly string[]) => all.filter(({ kind }) => kinds.includes(kind)).length;
    const [listed] = await database().query(
      `select
         (select count(*)::integer from pg_class where relnamespace = s and relkind = 'r') as tables,
         (select count(*)::integer from pg_class where relnamespace = s and relkind = 'v') as views,
         (select count(*)::integer from pg_proc where pronamespace = s
            and prolang <> (select oid from pg_language where lanname = 'internal')) as routines,
         (select count(*)::integer from pg_type where typnamespace = s and typtype = 'd') as domains,
         (select count(*)::integer from pg_constraint where connamespace = s and contype not in ('n', 't')) as constraints,
         (select count(*)::integer from pg_trigger t join pg_class c on c.oid = t.tgrelid
          where c.relnamespace = s and not t.tgisinternal) as triggers,
         (select count(*)::integer from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = s
            and not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype <> 'f')) as indexes,
         (select count(*)::integer from pg_attribute a join pg_class c on c.oid = a.attrelid
          where c.relnamespace = s and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped) as columns
       from (select 'filestore'::regnamespace as s) schema_`,
    );
    expect({
      tables: count('table'),
      views: count('view'),
      routines: count('function', 'procedure', 'aggregate'),
      domains: count('domain'),
      constraints: count('constraint'),
      triggers: count('trigger'),
      indexes: count('index'),
      columns: count('column'),
    }).toEqual(listed);
  });
});

describe('objects of kinds that the schema does not use', () => {
  const other = databaseForEachTest('empty');

  test('are in the model when someone creates them', async () => {
    await other().query(`
      create schema filestore;
      create type filestore.mood as enum ('so', 'it''s');
      create type filestore.nothing as enum ();
      create type filestore.pair as (a integer, "B c" text collate "C");
      create type filestore.span as range (subtype = integer);
      create sequence filestore.counter as integer increment 2 cycle;
      create table filestore.parts (id integer) partition by range (id);
      create table filestore.first_part partition of filestore.parts for values from (0) to (10);
      create table filestore."Odd: table" (id serial, kind text collate "C" default 'a'' default b');
      create rule ignore as on delete to filestore."Odd: table" do instead nothing;
      create materialized view filestore.kept as select 1 as one;
      create procedure filestore.work(inout steps integer, variadic rest text[] default '{}')
        language sql begin atomic select 1; end;
      create aggregate filestore.total (integer) (sfunc = int4pl, stype = integer, initcond = '0');
    `);
    const { objects } = await readFrom(other());
    const lines = objects
      .flatMap((object) => [object, ...object.parts])
      .filter(({ kind, name }) => kind !== 'privilege' && !/^span(_multirange)?\(/.test(name))
      .map(({ kind, name, definition }) => `${kind} ${name}: ${definition.replace(/\s+/g, ' ')}`);
    expect(lines).toEqual([
      'schema filestore: ',
      "type mood: enum ('so', 'it''s')",
      'type nothing: enum ()',
      'type pair: composite (a integer, "B c" text collate "C")',
      'type span: range of integer',
      'sequence "Odd: table_id_seq": integer start 1 increment 1 minvalue 1 maxvalue 2147483647 cache 1, owned by "Odd: table".id',
      'sequence counter: integer start 1 increment 2 minvalue 1 maxvalue 2147483647 cache 1, cycle',
      'table "Odd: table": ',
      `column id: integer not null default nextval('filestore."Odd: table_id_seq"'::regclass)`,
      `column kind: text collate "C" default 'a'' default b'::text`,
      'rule ignore: CREATE RULE ignore AS ON DELETE TO filestore."Odd: table" DO INSTEAD NOTHING;',
      'table first_part: inherits filestore.parts, FOR VALUES FROM (0) TO (10)',
      'column id: integer',
      'table parts: partition by RANGE (id)',
      'column id: integer',
      'materialized view kept:  SELECT 1 AS one;',
      'column one: integer',
      "procedure work(integer, text[]): inout argument steps integer variadic argument rest text[] default '{}'::text[] language sql volatile BEGIN ATOMIC SELECT 1; END",
      "aggregate total(integer): argument integer returns integer language internal immutable sfunc int4pl, stype integer, initcond '0'",
    ]);
  });
});

describe("the session's settings", () => {
  const sensitive = databaseForEachTest();

  const SETTINGS: Readonly<Record<string, string>> = {
    search_path: 'filestore, public',
    quote_all_identifiers: 'on',
    standard_conforming_strings: 'off',
    DateStyle: 'SQL, DMY',
    IntervalStyle: 'sql_standard',
    TimeZone: 'Asia/Kathmandu',
    bytea_output: 'escape',
    extra_float_digits: '-9',
    default_transaction_read_only: 'on',
    default_transaction_isolation: 'serializable',
  };

  async function sessionWithSettings() {
    // Values that the server prints according to its settings, besides names.
    await sensitive().query(
      `create table filestore.sensitive (
         id    serial,
         at    timestamptz      default timestamptz '2020-12-11 10:09:08+00',
         lasts interval         default interval '1 day 2 hours',
         bytes bytea            default bytea '\\x00ff41',
         ratio double precision default double precision '0.123456789012345678',
         path  text             default 'C:\\temp' check (path <> 'D:\\')
       )`,
    );
    const client = await sensitive().connect();
    const changeable = await changeableSettings(client);
    const settings = Object.entries(SETTINGS).filter(([name]) => changeable.has(name));
    for (const [name, value] of settings) {
      await client.query('select set_config($1, $2, false)', [name, value]);
    }
    return { client, settings: Object.fromEntries(settings) };
  }

  test('make no difference', async () => {
    const { client } = await sessionWithSettings();
    expect(await readCatalog(client)).toEqual(await readFrom(sensitive()));
  });

  test('are unchanged afterwards', async () => {
    const { client, settings } = await sessionWithSettings();
    await readCatalog(client);
    const { rows } = await client.query(
      'select name, current_setting(name) as value from unnest($1::text[]) name',
      [Object.keys(settings)],
    );
    expect(Object.fromEntries(rows.map(({ name, value }) => [name, value]))).toEqual(settings);
  });
});

describe('a database without the schema', () => {
  const empty = databaseForEachTest('empty');

  test('has an empty model', async () => {
    expect((await readFrom(empty())).objects).toEqual([]);
  });

  test('has a model with only the schema when the schema is empty', async () => {
    await empty().query('create schema filestore');
    expect((await readFrom(empty())).objects).toEqual([
      { kind: 'schema', name: 'filestore', definition: '', parts: [] },
    ]);
  });
});
