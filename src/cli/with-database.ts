import { DatabaseAheadError, HistoryDivergedError } from '../errors.ts';
import { type ConnectionSettings, migrationConnection, missingUrlError } from '../settings.ts';
import { openEmbeddedInstead } from './open-embedded.ts';
import type { Output } from './output.ts';

/** Runs `work` against the database of the environment, or in its absence against the embedded one. */
export async function withDatabase(
  output: Output,
  work: (connection: ConnectionSettings) => Promise<number>,
): Promise<number> {
  const configured = migrationConnection();
  if (configured !== undefined) return work(configured);
  const embedded = await openEmbeddedInstead(output, {
    because: 'No database URL is set',
    refusal: missingUrlError,
  });
  try {
    const connection = migrationConnection({ ...process.env, DATABASE_URL: embedded.url });
    if (connection === undefined) throw missingUrlError('the embedded Postgres has none.');
    const exitCode = await work(connection);
    output.say(`The data is in ${embedded.folder} and stays there.`);
    output.say(
      embedded.startedHere
        ? 'To open it: npm run db:start keeps it running and prints its URL.'
        : `It keeps running: ${embedded.url}`,
    );
    return exitCode;
  } catch (error) {
    // Developers rewrite migrations and switch branches; a database of their own is then the one to go.
    if (error instanceof HistoryDivergedError || error instanceof DatabaseAheadError) {
      output.warn('Where another branch has left it so: npm run db:reset makes the database anew.');
    }
    throw error;
  } finally {
    await embedded.close();
  }
}
