import type { FleetDatabase } from '../../../src/index.ts';
import { MIGRATION_LOCK_KEY } from '../../../src/session/lock-holder.ts';
import { committedMigrations, migrationNumber, numberAfterLast } from '../packages/committed-files.ts';
import type { TestDatabase } from './test-database.ts';

/** Databases in the form that programs give them. */
export const named = (urls: Readonly<Record<string, string>>): readonly FleetDatabase[] =>
  Object.entries(urls).map(([name, connectionString]) => ({ name, connectionString }));

/** The URL with a setting for its sessions, so that it has other settings than the same URL without it. */
export function withOption(url: string, option: string): string {
  const other = new URL(url);
  other.searchParams.set('options', `-c ${option}`);
  return other.href;
}

// What a fleet may come across. Each changes a migrated database.

const lastRecorded = `${migrationNumber(committedMigrations().at(-1) ?? '')}.sql`;

export const FORGET_LAST = `delete from graphile_migrate.migrations where filename = '${lastRecorded}'`;

/** The last migration is pending again; its objects are there. */
export const forgetLast = (database: TestDatabase) => database.query(FORGET_LAST);

/** A later version has migrated it. */
export const putAhead = (database: TestDatabase) =>
  database.query(
    `insert into graphile_migrate.migrations (filename, hash, previous_hash)
     select '${numberAfterLast(1)}.sql', 'sha1:77', hash from graphile_migrate.migrations where filename = $1`,
    [lastRecorded],
  );

/** Other files were applied. */
export const diverge = (database: TestDatabase) =>
  database.query('update graphile_migrate.migrations set hash = $2 where filename = $1', [
    lastRecorded,
    `sha1:${'0'.repeat(40)}`,
  ]);

/** Someone changed the schema by hand. */
export const drift = (database: TestDatabase) =>
  database.query('alter table filestore.nodes add column drifted_here text');

/** Another migrator is at work, until the connection ends. */
export async function lockOut(database: TestDatabase): Promise<{ release(): Promise<void> }> {
  const holder = await database.connect();
  await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
  return { release: () => holder.end() };
}

/** The first migration of an empty database fails, until it is allowed. */
export async function refuseSchema(database: TestDatabase): Promise<{ allow(): Promise<unknown> }> {
  const superuser = await database.connectAsSuperuser();
  await superuser.query(`
    create function public.refuse_schema() returns event_trigger language plpgsql as $$
    begin
      if to_regnamespace('filestore') is not null then
        raise exception 'no schema today';
      end if;
    end
    $$;
    create event trigger refuse_schema on ddl_command_end execute function public.refuse_schema();
  `);
  return { allow: () => superuser.query('drop event trigger refuse_schema') };
}
