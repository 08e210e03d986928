import { FilestoreError } from '../errors.ts';
import { paragraph, seconds } from '../text.ts';
import { inTime, lastRows, type Session } from './session.ts';

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
  const { where } = session.database;
  if (trust === 'refuse') {
    throw poolerError(
      `The connection to ${where} goes through a pooler, which can give this run's session to other clients.`,
      `Nothing was changed. ${SET_URL};`,
      'for a pooler in session mode, set FILESTORE_MIGRATION_POOLER=session.',
    );
  }
  const second = await session.openAnother();
  try {
    for (let round = 0; round < ROUNDS; round += 1) await refuseShared(session, second, pid);
  } finally {
    await second.close();
  }
}

/** Compares the server processes of two connections. */
async function refuseShared(session: Session, second: Session, pid: number): Promise<void> {
  const { where, config } = session.database;
  const waitMs = config.connectionTimeoutMillis;
  const other = await processIdOf(second, waitMs);
  if (other === undefined) {
    throw poolerError(
      `The pooler in front of ${where} did not give this run a second session within ${seconds(waitMs)}.`,
      'Nothing was changed. A run needs two at once: raise the pool size,',
      'or set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself.',
    );
  }
  const own = await processIdOf(session, waitMs);
  // Twice, because alternating sessions look like session mode to alternating queries of two connections.
  const again = await processIdOf(session, waitMs);
  if (other !== pid && own === pid && again === pid) return;
  throw poolerError(
    `The pooler in front of ${where} is not in session mode:`,
    'it does not keep one session of the server for one connection.',
    `Nothing was changed. ${SET_URL}.`,
  );
}

const SET_URL = 'Set FILESTORE_MIGRATION_DATABASE_URL to a URL of the server itself';

function poolerError(...sentences: readonly string[]): FilestoreError {
  return new FilestoreError('POOLER_IN_BETWEEN', paragraph(...sentences));
}

const PROCESS_ID = 'set local statement_timeout = 0; select pg_catalog.pg_backend_pid() as pid';

/** Undefined if there is no answer in time: a pooler accepts connections before it has a session for them. */
function processIdOf(session: Session, waitMs: number): Promise<number | undefined> {
  return inTime(
    lastRows<{ pid: number }>(session, PROCESS_ID).then(([row]) => row?.pid),
    waitMs,
  );
}
