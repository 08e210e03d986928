import type { Client } from 'pg';
import type { TestDatabase } from './test-database.ts';

/** Values that a database or role could have, by setting: others than those of migrations. */
export const OTHER_VALUES: Readonly<Record<string, string>> = {
  search_path: 'before, pg_catalog, public',
  standard_conforming_strings: 'off',
  backslash_quote: 'off',
  transform_null_equals: 'on',
  array_nulls: 'off',
  check_function_bodies: 'off',
  default_transaction_isolation: 'serializable',
  default_transaction_deferrable: 'on',
  session_replication_role: 'replica',
  row_security: 'off',
  restrict_nonsystem_relation_kind: 'view',
  gin_fuzzy_search_limit: '1',
  default_table_access_method: 'another_heap',
  default_text_search_config: 'pg_catalog.german',
  xmloption: 'document',
  xmlbinary: 'hex',
  createrole_self_grant: 'set',
  icu_validation_level: 'error',
  exit_on_error: 'on',
  client_min_messages: 'error',
  'plpgsql.check_asserts': 'off',
  'plpgsql.extra_errors': 'all',
  'plpgsql.extra_warnings': 'all',
  DateStyle: 'SQL, DMY',
  IntervalStyle: 'sql_standard',
  TimeZone: 'Asia/Kathmandu',
  timezone_abbreviations: 'India',
  lc_monetary: 'POSIX',
  lc_numeric: 'POSIX',
  lc_time: 'POSIX',
  bytea_output: 'escape',
  extra_float_digits: '-9',
  quote_all_identifiers: 'on',
  statement_timeout: '30s',
  transaction_timeout: '30s',
  lock_timeout: '30s',
  idle_session_timeout: '30s',
  idle_in_transaction_session_timeout: '30s',
  client_connection_check_interval: '0',
  tcp_keepalives_idle: '1',
  tcp_keepalives_interval: '1',
  tcp_keepalives_count: '1',
  tcp_user_timeout: '30s',
};

/** A schema for the front of a search path: each object fits better than one of pg_catalog, or comes before it. */
export const HOSTILE_SCHEMA = `
  create schema before;
  create domain before.text as pg_catalog.varchar;
  create domain before.oid as pg_catalog.int8;
  create function before.always(pg_catalog.text, pg_catalog.text) returns boolean language sql return true;
  create operator before.= (function = before.always, leftarg = pg_catalog.text, rightarg = pg_catalog.text);
  create operator before.<> (function = before.always, leftarg = pg_catalog.text, rightarg = pg_catalog.text);
  create function before.names(name, name) returns boolean language sql return true;
  create operator before.= (function = before.names, leftarg = name, rightarg = name);
  create function before.lower(pg_catalog.text) returns pg_catalog.text language sql return 'hijacked';
  create function before.length(pg_catalog.text) returns integer language sql return 0;
  create function before.now() returns timestamptz language sql return timestamptz '-infinity';
  create view before.pg_class as select * from pg_catalog.pg_class where false;
`;

/** Switches standard_conforming_strings off, where that is possible: it is always on from PostgreSQL 19 on. */
export const SWITCH_OFF_CONFORMING_STRINGS = `
  select pg_catalog.set_config('standard_conforming_strings', 'off', false)
  where pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 190000`;

/** The names of the settings that have another value on some server or in some session. */
export async function changeableSettings(client: Pick<Client, 'query'>): Promise<ReadonlySet<string>> {
  const { rows } = await client.query<{ name: string }>(
    `select name from pg_catalog.pg_settings
     where name <> 'standard_conforming_strings' or pg_catalog.current_setting('server_version_num')::pg_catalog.int4 < 190000`,
  );
  return new Set(rows.map(({ name }) => name));
}

/** Sets them on a database, except those that this server does not have or does not let change. */
export async function setOnDatabase(
  database: TestDatabase,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  // The owner may set only some of them.
  const client = await database.connectAsSuperuser();
  await client.query("load 'plpgsql'");
  const names = await changeableSettings(client);
  if ('default_table_access_method' in settings) {
    await client.query('create access method another_heap type table handler heap_tableam_handler');
  }
  for (const [name, value] of Object.entries(settings).filter(([name]) => names.has(name))) {
    // A path and a list are several values.
    const values = name === 'search_path' ? value : `'${value}'`;
    await client.query(`alter database ${database.name} set ${name} = ${values}`);
  }
  await database.disconnect();
}
