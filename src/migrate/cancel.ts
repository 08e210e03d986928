import { setTimeout as delay } from 'node:timers/promises';
import type { GraphileThread } from '../graphile/thread.ts';
import type { Queryable, Session } from '../session/session.ts';

const CANCEL_EVERY_MS = 50;
/** How long a cancelled statement may take to end before its session is ended, and then the thread. */
const CANCEL_MS = 600;
const END_MS = 900;

/**
 * Ends the thread: first its statement on the server, so that the transaction rolls back and its locks are
 * released, then the thread itself, even if the server is silent. Otherwise the server would continue the
 * statement.
 */
export async function cancelThread(session: Session, thread: GraphileThread): Promise<void> {
  thread.stop();
  const cancelled = cancelStatement(session, thread).catch(() => undefined);
  await Promise.race([cancelled, delay(END_MS, undefined, { ref: false })]);
  await thread.end();
}

/** Cancels until the thread has ended, because a cancel between two statements has no effect. */
async function cancelStatement(session: Session, thread: GraphileThread): Promise<void> {
  const pid = thread.pid();
  if (pid === undefined) return;
  const endSessionAt = performance.now() + CANCEL_MS;
  const canceller = (await session.isAlive())
    ? session
    : await session.openAnother(AbortSignal.timeout(END_MS));
  try {
    while (!thread.hasEnded()) {
      const end = performance.now() > endSessionAt ? 'pg_terminate_backend' : 'pg_cancel_backend';
      await canceller.query(`select pg_catalog.${end}(${pid})`);
      await delay(CANCEL_EVERY_MS);
    }
  } finally {
    if (canceller !== session) await canceller.close();
  }
}

/**
 * Ends sessions that earlier attempts of a run have lost. A proxy can keep them on the server, with their
 * locks. Another process may have the number of an ended one, so the name of the session counts too.
 */
export async function endSessions(session: Queryable, pids: Iterable<number>): Promise<void> {
  await session
    .query(
      `select pg_catalog.pg_terminate_backend(a.pid)
       from pg_catalog.pg_stat_activity a
       where a.pid operator(pg_catalog.=) any ('{${[...pids].join()}}'::pg_catalog.int4[])
         and a.application_name operator(pg_catalog.=) pg_catalog.current_setting('application_name')`,
    )
    .catch(() => undefined);
}
