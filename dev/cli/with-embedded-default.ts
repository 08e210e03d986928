import type { WithDatabase } from '../../src/cli/define-command.ts';
import { configuredConnection } from '../../src/cli/with-configured-database.ts';
import { DatabaseAheadError, HistoryDivergedError } from '../../src/errors.ts';
import { migrationConnection, missingUrlError } from '../../src/settings/settings.ts';
import { openEmbeddedInstead } from './open-embedded.ts';

/** Runs `work` on the database of the environment, or on the embedded one if none is set. */
export const withEmbeddedDefault: WithDatabase = async (output, work) => {
  const configured = configuredConnection(output);
  if (configured !== undefined) return work(configured);
  const embedded = await openEmbeddedInstead(output, {
    because: 'No database URL is set',
    refusal: missingUrlError,
  });
  try {
    const own = migrationConnection({ ...process.env, DATABASE_URL: embedded.url });
    if (own === undefined) throw missingUrlError('the embedded Postgres did not give one.');
    // No variable of the environment has its URL, so errors must not name one.
    const { variable: _, ...connection } = own;
    const exitCode = await work(connection);
    output.say(`The data is in ${embedded.folder} and stays there.`);
    output.say(
      embedded.startedHere
        ? 'To open it: npm run db:start keeps it running and prints its URL.'
        : `It keeps running: ${embedded.url}`,
    );
    return exitCode;
  } catch (error) {
    // Developers rewrite migrations and switch branches. Then the fix is to recreate the database.
    if (error instanceof HistoryDivergedError || error instanceof DatabaseAheadError) {
      output.warn('If another branch did this, run npm run db:reset.');
    }
    throw error;
  } finally {
    await embedded.close();
  }
};
