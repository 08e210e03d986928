/**
 * The statements that give a session server settings where it has other values. The first one lifts the
 * time limit that the second one could exceed in a new session. Settings that an older server does not have
 * are left out, and so is session_replication_role for a role that may not set it. In plain JavaScript,
 * because the thread of graphile-migrate uses it too.
 * @param {Readonly<Record<string, string>>} settings Values without backslashes and quotes.
 * @param {{ readonly isLocal: boolean }} scope Until the end of the transaction, or of the session.
 */
export function settingStatement(settings, { isLocal }) {
  // Operators with their schema: the search path is not pinned yet.
  return `set ${isLocal ? 'local ' : ''}statement_timeout = 0;
select pg_catalog.set_config(s.key, s.value, ${isLocal})
from pg_catalog.json_each_text('${JSON.stringify(settings)}') s
where pg_catalog.current_setting(s.key, true) operator(pg_catalog.<>) s.value
  and (
    s.key operator(pg_catalog.<>) 'session_replication_role'
    or pg_catalog.has_parameter_privilege(s.key, 'set')
  )`;
}

/** More are not needed: even on a busy server, a limit of 1 ms ends about one message in 25. */
const ATTEMPTS = 10;

/**
 * Sends a message that lifts the time limit of its session first. The limit counts from the arrival of the
 * message, and can end it before that. Then nothing has run, and the message is sent again.
 * @template T
 * @param {() => Promise<T>} send
 * @returns {Promise<T>}
 */
export async function sendUntilLifted(send) {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await send();
    } catch (error) {
      const isEnded = error instanceof Error && 'code' in error && error.code === '57014';
      if (!isEnded || attempt === ATTEMPTS) throw error;
    }
  }
}
