import pg, { type Client } from 'pg';
import { FilestoreError } from '../errors.ts';
import { connectionError, connectionLostError, isConnectionLoss } from '../session/connection-error.ts';
import { copyOf, type Database } from '../settings/database.ts';
import { asSentence, messageOfError, paragraph, printable } from '../text.ts';

/**
 * Connects to a database.
 * @throws {FilestoreError} `CONNECTION_FAILED` when the server cannot be reached or refuses.
 */
export async function connect(database: Database): Promise<Client> {
  const client = new pg.Client(copyOf(database.config));
  // Without a listener, a lost connection would end the process.
  client.on('error', () => undefined);
  await client.connect().catch((cause) => {
    throw connectionError(database, cause);
  });
  return client;
}

/**
 * Runs `work` with a separate connection.
 * @throws {FilestoreError} `CONNECTION_FAILED` or `CONNECTION_LOST`; `TEST_DATABASE_FAILED` for errors of the server.
 */
export async function onDatabase<T>(database: Database, work: (client: Client) => Promise<T>): Promise<T> {
  const client = await connect(database);
  try {
    return await work(client);
  } catch (error) {
    throw describeFailure(database.where, error);
  } finally {
    await client.end();
  }
}

function describeFailure(where: string, cause: unknown): FilestoreError {
  if (cause instanceof FilestoreError) return cause;
  if (isConnectionLoss(cause)) return connectionLostError(where, cause);
  const message = paragraph(
    `Work with a test database failed on ${where}: ${asSentence(printable(messageOfError(cause)))}`,
    'Correct this on the server, or use another one.',
  );
  return new FilestoreError('TEST_DATABASE_FAILED', message, { cause });
}
