import { migrationConnection, missingUrlError } from '../settings/settings.ts';
import type { WithDatabase } from './define-command.ts';

/** The help's paragraph about it. */
export const CONFIGURED_DATABASE_HELP =
  'The database: FILESTORE_MIGRATION_DATABASE_URL, else FILESTORE_DATABASE_URL, else DATABASE_URL.';

/**
 * Runs `work` on the database of the environment.
 * @throws {SettingsError} when no variable names one.
 */
export const withConfiguredDatabase: WithDatabase = async (_output, work) => {
  const connection = migrationConnection();
  if (connection === undefined) throw missingUrlError('no variable holds one.');
  return work(connection);
};
