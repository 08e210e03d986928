import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage, type PackageCopy } from '../../../harness/package-copy.ts';
import { MODEL_FILE } from '../../../src/catalog/committed-model.ts';
import { parseModel, renderModel } from '../../../src/catalog/render.ts';
import { withClient } from '../../../src/testing/with-client.ts';
import { committedMigrations, migrationNumber } from './committed-files.ts';

/**
 * The migrations of a run, one of each kind. All write that they were applied, or cannot be applied twice unseen. The
 * first one changes the schema that `verify` compares. The check cannot be evaluated before the first one, nor after its own.
 */
const MIGRATIONS = {
  'in-a-transaction': `
set local work_mem = '5MB';
alter table app.items add column owner text;
alter table app.items disable trigger items_changed;
update app.items set owner = 'ann';
alter table app.items enable trigger items_changed;
create domain filestore.item_kind as text;
insert into app.applied values ('in a transaction');`,
  'without-a-transaction': `--! no-transaction
alter type app.kind add value if not exists 'second';`,
  concurrently: `--! no-transaction
create index concurrently if not exists items_note_idx on app.items (note);`,
  'with-a-check': `
--check: Some items have no owner. Set app.items.owner first.
--  select not exists (select from app.items where owner is null or is_draft)
alter table app.items alter column owner set not null;
alter table app.items drop column is_draft;
insert into app.applied values ('with a check');`,
  'with-an-include': `
--! Included functions/doubled.sql
create or replace function app.doubled(i integer) returns integer language sql as 'select i * 2';
--! EndIncluded functions/doubled.sql
insert into app.applied values ('with an include');`,
} as const;

export const KINDS: readonly string[] = Object.keys(MIGRATIONS);

/** The database before a run. */
const BEFORE = `
drop schema if exists app cascade;
drop domain if exists filestore.item_kind;
create schema app;
create type app.kind as enum ('first');
create table app.applied (migration text);
create table app.items (id bigint generated always as identity, note text, changes integer default 0, is_draft boolean default false);
insert into app.items (note) select 'note ' || n from generate_series(1, 20) n;
create function app.note_change() returns trigger language plpgsql as
  'begin new.changes := old.changes + 1; return new; end';
create trigger items_changed before update on app.items for each row execute function app.note_change();`;

/** What a run leaves, as lines. Each migration that is applied twice, or halfway, changes one. */
const PICTURE = `
select 'recorded ' || filename as line from graphile_migrate.migrations
union all select 'applied ' || migration from app.applied
union all select 'value ' || enumlabel from pg_enum where enumtypid = 'app.kind'::regtype
union all select 'domain ' || typname from pg_type where typtype = 'd' and typname = 'item_kind'
union all select format('index %s, valid %s, ready %s', indexrelid::regclass, indisvalid, indisready)
  from pg_index where indrelid = 'app.items'::regclass
union all select format('trigger %s %s', tgname, tgenabled) from pg_trigger where tgrelid = 'app.items'::regclass
union all select format('column %s %s', attname, attnotnull)
  from pg_attribute where attrelid = 'app.items'::regclass and attnum > 0
union all select format('item %s', i) from app.items i
union all select format('function %s %s', oid::regprocedure, prosrc) from pg_proc where pronamespace = 'app'::regnamespace
union all select format('setting %s of %s', setconfig, setrole) from pg_db_role_setting
  where setdatabase in (0, (select oid from pg_database where datname = current_database()))
union all select 'prepared ' || gid from pg_prepared_xacts where database = current_database()
union all select format('lock %s of %s', l.mode, l.locktype) from pg_locks l
  where l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid()
    and exists (select from pg_stat_activity a where a.pid = l.pid and a.backend_type = 'client backend')
order by 1`;

/** A copy of the package with these migrations, and a model that has what they change. */
export function copyEachKind(): PackageCopy {
  const copy = copyPackage();
  const added = Object.entries(MIGRATIONS).map(([name, sql]) => copy.addMigration(name, sql));
  const path = join(copy.folder, MODEL_FILE);
  const { model, migration } = parseModel(readFileSync(path, 'utf8'), MODEL_FILE);
  const usage = { kind: 'privilege', name: 'USAGE', definition: 'to public', parts: [] } as const;
  const domain = { kind: 'domain', name: 'item_kind', definition: 'text', parts: [usage] } as const;
  writeFileSync(path, renderModel({ ...model, objects: [...model.objects, domain] }, migration));
  copy.modelIsOf(added.at(-1) ?? '');
  return copy;
}

/** Makes a migrated database one without these migrations. */
export async function resetItems(url: string): Promise<void> {
  const last = `${migrationNumber(committedMigrations().at(-1) ?? '')}.sql`;
  await withClient(url, async (client) => {
    await client.query(BEFORE);
    await client.query('delete from graphile_migrate.migrations where filename > $1', [last]);
  });
}

export const readItems = (url: string): Promise<readonly string[]> =>
  withClient(url, async (client) => {
    const { rows } = await client.query<{ line: string }>(PICTURE);
    return rows.map(({ line }) => line);
  });

/** What distinguishes two pictures, as sentences. */
export function differencesBetween(expected: readonly string[], found: readonly string[]): readonly string[] {
  return [
    ...found.filter((line) => !expected.includes(line)).map((line) => `There is: ${line}`),
    ...expected.filter((line) => !found.includes(line)).map((line) => `There is no: ${line}`),
    ...(found.length > new Set(found).size ? ['A line is there twice'] : []),
  ];
}
