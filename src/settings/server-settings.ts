import { settingStatement } from './setting-statement.mjs';

// Server settings that a database or role can carry (alter database … set) and that would change a run.
// Each session of migrations has these values instead. Values are the server's own defaults, unless the
// comment says otherwise. test/settings/server-settings.test.ts compares these lists with the settings of
// the server.

/** What SQL means. */
export const SQL_SETTINGS: Readonly<Record<string, string>> = {
  // First, because other settings are stored as they are printed.
  quote_all_identifiers: 'off',
  // Only pg_catalog. Otherwise an object of another schema could be used in place of a built-in one.
  search_path: '',
  // Off: a backslash in a string is an escape, so checks and functions get other patterns without an error.
  standard_conforming_strings: 'on',
  // Off: \' in an E'' string is an error.
  backslash_quote: 'safe_encoding',
  // On: "= null" is read as "is null".
  transform_null_equals: 'off',
  // Off: a null in the text of an array is a string.
  array_nulls: 'on',
  // Off: wrong function bodies are accepted, and fail when they are called.
  check_function_bodies: 'on',
  // Higher levels fail with 40001 while services write. The schema's functions assume this level.
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  // Replica: triggers do not fire, so history, totals and the renewal of rights are skipped. Only a
  // superuser, or a role with the right to set it, can change it: for others a run refuses "replica" with
  // TRIGGERS_DISABLED.
  session_replication_role: 'origin',
  // Off: a query on a table with policies is an error.
  row_security: 'on',
  // It can forbid views and foreign tables.
  restrict_nonsystem_relation_kind: '',
  // A limit drops rows from the results of GIN indexes.
  gin_fuzzy_search_limit: '0',
  // Another table access method may lack foreign keys or updates.
  default_table_access_method: 'heap',
  // Without it, a text search that names no configuration would use that of the database.
  default_text_search_config: 'pg_catalog.simple',
  xmloption: 'content',
  xmlbinary: 'base64',
  // From PostgreSQL 16 on: rights that a role gets on the roles that it creates.
  createrole_self_grant: '',
  // From PostgreSQL 16 on: whether an unknown locale of a collation is an error.
  icu_validation_level: 'warning',
  // On: any error ends the session, and a lock timeout would look like a lost connection.
  exit_on_error: 'off',
  // Higher: warnings do not arrive, and the run cannot report them.
  client_min_messages: 'notice',
  'plpgsql.check_asserts': 'on',
  // Others turn correct functions into errors.
  'plpgsql.extra_errors': 'none',
  'plpgsql.extra_warnings': 'none',

  // How values are read and printed: migrations convert values to text, and the comparison reads the
  // catalog as text.
  DateStyle: 'ISO, MDY',
  IntervalStyle: 'postgres',
  // Not the default, which is the time zone of the server's machine.
  TimeZone: 'UTC',
  timezone_abbreviations: 'Default',
  lc_monetary: 'C',
  lc_numeric: 'C',
  lc_time: 'C',
  bytea_output: 'hex',
  extra_float_digits: '1',
};

/** How long a session, a transaction or a statement may take. */
const TIME_LIMITS: Readonly<Record<string, string>> = {
  statement_timeout: '0',
  // From PostgreSQL 17 on. It would end a long migration, and leave an invalid index after a concurrent
  // build.
  transaction_timeout: '0',
  lock_timeout: '0',
};

/**
 * Settings of a session that lasts for the whole run and may be idle during a long migration. The server
 * keeps it, but notices within half a minute (by default two hours) that its host is unreachable, and frees
 * its locks. On a Unix socket, the settings of TCP have no effect.
 */
export const LONG_SESSION: Readonly<Record<string, string>> = {
  idle_session_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  // Not the default. Without it, a server process would continue and hold its locks after its client was
  // killed.
  client_connection_check_interval: '500',
  tcp_keepalives_idle: '10',
  tcp_keepalives_interval: '5',
  tcp_keepalives_count: '3',
  // For data that the host has not confirmed; the others are for a quiet connection.
  tcp_user_timeout: '25000',
};

/** All settings, for a session that waits for the lock, migrates and verifies. */
export const RUN_SETTINGS: Readonly<Record<string, string>> = {
  ...SQL_SETTINGS,
  ...TIME_LIMITS,
  ...LONG_SESSION,
};

/**
 * A query that reads under these settings, as one message. The settings end with the message, so that a
 * pooler's next client does not get them. The query must not contain backslashes, because the server parses
 * the whole message with the settings from before. Its result comes last.
 */
export function underPinnedSettings(query: string): string {
  // The time limit first. Then the isolation, before any query: a hot standby refuses "serializable".
  return `set local statement_timeout = 0;
set local transaction_isolation = 'read committed';
${settingStatement({ ...SQL_SETTINGS, ...TIME_LIMITS }, { isLocal: true })};
${query}`;
}
