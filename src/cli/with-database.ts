import { HistoryDivergedError } from '../errors.ts';
import { type ConnectionSettings, migrationConnection, missingUrlError } from '../settings.ts';
import type { Output } from './output.ts';

/** Runs `work` against the database of the environment, or in its absence against the embedded one. */
export async function withDatabase(
  output: Output,
  work: (connection: ConnectionSettings) => Promise<number>,
): Promise<number> {
  const configured = migrationConnection();
  if (configured !== undefined) return work(configured);
  if (process.env.NODE_ENV === 'production') {
    throw missingUrlError('with NODE_ENV=production the embedded Postgres is not used.');
  }
  const { openEmbedded } = await import('../dev/embedded/embedded.ts');
  output.say('No database URL is set: using the embedded Postgres.');
  const embedded = await openEmbedded();
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
    // Until a release, developers rewrite migrations; a database of their own is then the one to go.
    if (error instanceof HistoryDivergedError) {
      output.warn(`To start with a new database, remove ${embedded.folder}.`);
    }
    throw error;
  } finally {
    await embedded.close();
  }
}
