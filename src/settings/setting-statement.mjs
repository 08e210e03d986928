/**
 * The statement that gives a session server settings where it has other values. Settings that an older server does not
 * have are left out, and so is session_replication_role for a role that may not set it. In plain JavaScript, because the
 * thread of graphile-migrate uses it too.
 * @param {Readonly<Record<string, string>>} settings Values without backslashes and quotes.
 * @param {{ readonly isLocal: boolean }} scope Until the end of the transaction, or of the session.
 */
export function settingStatement(settings, { isLocal }) {
  // Operators with their schema: the search path is not pinned yet.
  return `select pg_catalog.set_config(s.key, s.value, ${isLocal})
from pg_catalog.json_each_text('${JSON.stringify(settings)}') s
where pg_catalog.current_setting(s.key, true) operator(pg_catalog.<>) s.value
  and (s.key operator(pg_catalog.<>) 'session_replication_role' or pg_catalog.has_parameter_privilege(s.key, 'set'))`;
}
