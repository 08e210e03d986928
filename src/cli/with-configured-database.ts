import { describeConnection } from '../settings/database.ts';
import {
  type ConnectionSettings,
  isSet,
  MIGRATION_URL_VARIABLES,
  migrationConnection,
  missingUrlError,
} from '../settings/settings.ts';
import type { WithDatabase } from './define-command.ts';
import type { Output } from './output.ts';

/** The help's paragraph about it. */
export const CONFIGURED_DATABASE_HELP =
  'The database: FILESTORE_MIGRATION_DATABASE_URL, else FILESTORE_DATABASE_URL, else DATABASE_URL.';

/**
 * Runs `work` on the database of the environment.
 * @throws {SettingsError} when no variable names one.
 */
export const withConfiguredDatabase: WithDatabase = async (output, work) => {
  const connection = configuredConnection(output);
  if (connection === undefined) throw missingUrlError('no variable has one.');
  return work(connection);
};

/**
 * The connection of the environment. Prints a line that names its variable, because a forgotten variable may
 * take precedence over the intended one.
 * @returns undefined when no variable is set.
 */
export function configuredConnection(output: Output): ConnectionSettings | undefined {
  const connection = migrationConnection();
  if (connection === undefined) return undefined;
  const { variable } = connection;
  const others = MIGRATION_URL_VARIABLES.filter((name) => name !== variable && isSet(process.env[name]));
  const unused =
    others.length === 0
      ? ''
      : `; ${others.join(' and ')} ${others.length === 1 ? 'is' : 'are'} also set, and not used`;
  output.say(`Using ${describeConnection(connection)} from ${variable}${unused}.`);
  return connection;
}
