import { setTimeout as delay } from 'node:timers/promises';
import { FilestoreError } from '../errors.ts';
import { paragraph, seconds } from '../text.ts';
import { lastRows, type Session } from './session.ts';

/**
 * How often two connections are compared. In transaction mode, traffic of other clients can make one
 * comparison look like session mode, at most every fourth time.
 */
const ROUNDS = 10;

/**
 * Refuses a pooler: in transaction mode, it shares a session's locks and settings between clients, and the
 * same migration can run twice. A pooler is detected by the process id that it makes up for the connection.
 * @throws {FilestoreError} `POOLER_IN_BETWEEN` unless the caller declares session mode and the comparison
 * does not disprove it.
 */
export async function refusePooler(
  session: Session,
  pid: number,
  trust: 'refuse' | 'session',
): Promise<void> {
  if (session.announcedPid === pid) return;
  const { where, config } = session.database;
  const connectTimeoutMs = config.connectionTimeoutMillis;
  if (trust === 'refuse') {
    throw new FilestoreError(
      'POOLER_IN_BETWEEN',
      paragraph(
        paragraph(
          `The connection to ${where} goes through a pooler, which can give this run's session to`,
          'other clients.',
        ),
        'Nothing was changed. Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself;',
        'for a pooler in session mode, set FILESTORE_MIGRATION_POOLER=session.',
      ),
    );
  }
  const second = await session.openAnother();
  try {
    for (let round = 0; round < ROUNDS; round += 1) {
      const other = await processIdOf(second, connectTimeoutMs);
      if (other === undefined) {
        throw new FilestoreError(
          'POOLER_IN_BETWEEN',
          paragraph(
            `The pooler in front of ${where} did not give this run a second session`,
            paragraph(
              `within ${seconds(connectTimeoutMs)}. Nothing was changed.`,
              'A run needs two at once: raise the pool size,',
            ),
            'or set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.',
          ),
        );
      }
      const own = await processIdOf(session, connectTimeoutMs);
      // Twice, because alternating sessions look like session mode to alternating queries of two connections.
      const again = await processIdOf(session, connectTimeoutMs);
      if (other !== pid && own === pid && again === pid) continue;
      throw new FilestoreError(
        'POOLER_IN_BETWEEN',
        paragraph(
          `The pooler in front of ${where} is not in session mode:`,
          'it does not keep one session of the server for one connection.',
          'Nothing was changed. Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.',
        ),
      );
    }
  } finally {
    await second.close();
  }
}

const PROCESS_ID = 'set local statement_timeout = 0; select pg_catalog.pg_backend_pid() as pid';

/** Undefined if there is no answer in time: a pooler accepts connections before it has a session for them. */
async function processIdOf(session: Session, waitMs: number): Promise<number | undefined> {
  const pid = lastRows<{ pid: number }>(session, PROCESS_ID).then(([row]) => row?.pid);
  // Its failure after the wait must not become an unhandled rejection.
  pid.catch(() => undefined);
  return Promise.race([pid, delay(waitMs, undefined, { ref: false })]);
}
