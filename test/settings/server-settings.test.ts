import { createRequire } from 'node:module';
import { expect, test } from 'vitest';
import { CONFIG_FILE } from '../../src/package-root.ts';
import { RUN_SETTINGS, SQL_SETTINGS } from '../../src/settings/server-settings.ts';
import { OTHER_VALUES } from '../support/databases/database-settings.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile('empty');
const { getSettings } = createRequire(import.meta.url)('graphile-migrate/dist/commands/_common.js') as {
  getSettings: (options: {
    configFile: string;
  }) => Promise<{ readonly pgSettings: Readonly<Record<string, string>> }>;
};

/** Their settings change how a statement is planned, stored or logged, and not its result. */
const OTHER_CATEGORIES = [
  'Client Connection Defaults / Shared Library Preloading',
  'Connections and Authentication / Authentication',
  'Developer Options',
  'File Locations',
  'Query Tuning',
  'Replication',
  'Reporting and Logging',
  'Resource Usage',
  'Statistics',
  'Vacuuming',
  'Write-Ahead Log',
];

/** Settings of the other categories that migrations leave as they are, each with the reason. */
const LEFT: Readonly<Record<string, string>> = {
  client_encoding: 'pg sets UTF8 at the start of each session',
  lc_messages: 'this package reads SQLSTATEs, not messages',
  default_transaction_read_only: 'a run refuses it (DATABASE_READ_ONLY)',
  transaction_deferrable: 'belongs to a transaction',
  transaction_isolation: 'belongs to a transaction',
  transaction_read_only: 'belongs to a transaction',
  default_tablespace: 'the operator decides where files are',
  temp_tablespaces: 'the operator decides where files are',
  default_toast_compression: 'changes only how values are stored',
  gin_pending_list_limit: 'changes only how values are stored',
  event_triggers: 'the schema has none; those of the operator stay as they are',
  dynamic_library_path: 'the schema has no function in C',
  extension_control_path: 'the schema has no extension',
  lo_compat_privileges: 'the schema has no large object',
  deadlock_timeout: 'only how soon a deadlock is found',
  escape_string_warning: 'warns only if standard_conforming_strings is off',
  synchronize_seqscans: 'changes only an order that no query promises',
  'plpgsql.print_strict_params': 'changes only the detail of an error',
  'plpgsql.variable_conflict': 'changes only names that are an error without it',
};

interface Setting {
  readonly name: string;
  readonly boot_val: string | null;
}

/** What a database or role can carry, in the categories that matter. */
async function settingsOfServer(): Promise<readonly Setting[]> {
  const superuser = await database().connectAsSuperuser();
  await superuser.query("load 'plpgsql'");
  const { rows } = await superuser.query<{ name: string; boot_val: string | null }>(
    `select name, boot_val from pg_settings
     where context in ('user', 'superuser')
       and not category ^@ any ($1::text[])
       and not name ^@ 'vacuum_' -- of another category before PostgreSQL 18
       and (category <> 'Customized Options' or name like 'plpgsql.%')`,
    [OTHER_CATEGORIES],
  );
  return rows;
}

test('every setting that a database or role can carry is pinned, or left for a reason', async () => {
  const names = (await settingsOfServer()).map(({ name }) => name);
  expect(names.filter((name) => !(name in RUN_SETTINGS) && !(name in LEFT))).toEqual([]);
  expect(Object.keys(LEFT).filter((name) => name in RUN_SETTINGS)).toEqual([]);
});

test("what SQL means is pinned to the server's own defaults, except where the value depends on the server", async () => {
  const different = (await settingsOfServer()).filter(
    ({ name, boot_val }) => name in SQL_SETTINGS && SQL_SETTINGS[name] !== boot_val,
  );
  expect(different.map(({ name }) => name).sort()).toEqual([
    'TimeZone',
    'search_path',
    'timezone_abbreviations',
  ]);
});

test("graphile-migrate's own command line has the same, where every role may set it on every server", async () => {
  const { pgSettings } = await getSettings({ configFile: CONFIG_FILE });
  const {
    session_replication_role: _ofSuperusers,
    createrole_self_grant: _from16,
    icu_validation_level: _alsoFrom16,
    restrict_nonsystem_relation_kind: _ofRecentMinorVersions,
    ...everywhere
  } = SQL_SETTINGS;
  expect(pgSettings).toEqual(everywhere);
});

test('the tests have another value for each of them', () => {
  expect(Object.keys(OTHER_VALUES).sort()).toEqual(Object.keys(RUN_SETTINGS).sort());
});
