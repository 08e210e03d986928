import type { LockHolder, ServerProcess } from '../errors.ts';
import { paragraph, printable } from '../text.ts';

/** Key of this package's advisory lock: the letters "filestor" as one number. */
export const MIGRATION_LOCK_KEY = '7379548647407775602';
/** Key of graphile-migrate's advisory lock (dist/pgReal.js), which its command line takes too. */
export const GRAPHILE_LOCK_KEY = '4727445306447283';

// Parts of queries that return holders as JSON (HolderRow). They work for any role: the server hides the
// times of other roles' sessions from most roles, and prepared transactions from none.

/** @param a Alias of a row of pg_stat_activity, all null if the session has ended. */
export const sessionHolder = (a: string) => `pg_catalog.json_build_object(
  'kind', case
    when ${a}.pid is null then 'unknown'
    when ${a}.backend_start is null then 'hidden session'
    else 'session'
  end,
  'pid', ${a}.pid, 'role', ${a}.usename,
  'applicationName', ${a}.application_name, 'connectedAt', ${a}.backend_start
)`;

/** @param p Alias of a row of pg_prepared_xacts. */
export const preparedHolder = (p: string) => `pg_catalog.json_build_object(
  'kind', 'prepared transaction',
  'gid', ${p}.gid, 'role', ${p}.owner, 'database', ${p}.database, 'preparedAt', ${p}.prepared,
  'ageMs', pg_catalog.round(1000 * extract(epoch from pg_catalog.clock_timestamp() - ${p}.prepared))
)`;

/**
 * Whether a prepared transaction, which has no process, holds a lock. Its locks share a virtual transaction
 * id with the lock on its own transaction id.
 * @param l Alias of a row of pg_locks.
 * @param p Alias of a row of pg_prepared_xacts.
 */
export const isHeldByPrepared = (l: string, p: string) => `${l}.pid is null and exists (
  select from pg_catalog.pg_locks own
  where own.locktype = 'transactionid' and own.transactionid = ${p}.transaction
    and own.pid is null and own.virtualtransaction = ${l}.virtualtransaction
)`;

/**
 * @param l Alias of a row of pg_locks.
 * @param a Alias of the row of pg_stat_activity that is joined to it.
 */
export const lockHolder = (l: string, a: string) => `case
  when ${l}.pid is not null then ${sessionHolder(a)}
  else coalesce(
    (
      select ${preparedHolder('p')}
      from pg_catalog.pg_prepared_xacts p
      where ${isHeldByPrepared(l, 'p')} limit 1
    ),
    '{"kind": "unknown"}'
  )
end`;

/** A holder, as returned by a query. */
export type HolderRow =
  | (ServerProcess & { readonly kind: 'session'; readonly connectedAt: string })
  | (ServerProcess & { readonly kind: 'hidden session'; readonly connectedAt: null })
  | (Omit<Extract<LockHolder, { readonly kind: 'prepared transaction' }>, 'preparedAt' | 'remedy'> & {
      readonly preparedAt: string;
    })
  | { readonly kind: 'unknown' };

export const UNKNOWN_HOLDER: LockHolder = { kind: 'unknown', remedy: 'Run this again' };

export function readHolder(row: HolderRow): LockHolder {
  if (row.kind === 'unknown') return UNKNOWN_HOLDER;
  if (row.kind === 'prepared transaction') {
    return {
      ...row,
      preparedAt: new Date(row.preparedAt),
      remedy: paragraph(
        `Roll it back in database "${printable(row.database)}", as role "${printable(row.role)}" or`,
        `a superuser: rollback prepared ${sqlString(row.gid)}`,
      ),
    };
  }
  const { connectedAt, ...session } = row;
  const remedy = endSession(row.pid);
  return session.kind === 'session'
    ? { ...session, kind: 'session', connectedAt: new Date(connectedAt ?? 0), remedy }
    : { ...session, kind: 'hidden session', remedy };
}

function endSession(pid: number): string {
  return paragraph(
    'If its program no longer runs, or is not a migrator, end it as its role,',
    `a member of pg_signal_backend or a superuser: select pg_terminate_backend(${pid})`,
  );
}

/**
 * A server process in words, such as `server process 4711, role "deployer", application "filestore migrate
 * …"`.
 */
export function describeProcess({ pid, role, applicationName }: ServerProcess): string {
  const parts = [`server process ${pid}`];
  if (role !== null) parts.push(`role "${role}"`);
  if (applicationName !== null && applicationName !== '') parts.push(`application "${applicationName}"`);
  return printable(parts.join(', '));
}

/** In words, such as `server process 4711, role "deployer", application "filestore migrate …"`. */
export function describeHolder(holder: LockHolder): string {
  if (holder.kind === 'unknown') return 'a holder that ended while it was looked up';
  if (holder.kind !== 'prepared transaction') return describeProcess(holder);
  return paragraph(
    `prepared transaction ${sqlString(holder.gid)} of role "${printable(holder.role)}" in database`,
    `"${printable(holder.database)}", prepared at ${moment(holder.preparedAt)}`,
    `(${age(holder.ageMs)} ago)`,
  );
}

/** Several, separated by semicolons; empty for none. */
export function describeHolders(holders: readonly LockHolder[]): string {
  return holders.map(describeHolder).join('; ');
}

/** The same, with the time when a session connected. */
export function describeHolderAndSince(holder: LockHolder): string {
  if (holder.kind === 'session')
    return `${describeHolder(holder)}, connected at ${moment(holder.connectedAt)}`;
  if (holder.kind === 'hidden session') {
    return `${describeHolder(holder)}, connected at a time that only pg_read_all_stats may see`;
  }
  return describeHolder(holder);
}

/** Identifies a holder over several queries. */
export function holderKey(holder: LockHolder): string {
  if ('pid' in holder) return `process ${holder.pid}`;
  return holder.kind === 'unknown' ? 'unknown' : `prepared ${holder.gid}`;
}

function moment(date: Date): string {
  return `${date.toISOString().slice(0, 19)}Z`;
}

function age(milliseconds: number): string {
  const minutes = Math.floor(milliseconds / 60_000);
  if (minutes < 1) return `${Math.floor(milliseconds / 1000)} s`;
  if (minutes < 60) return `${minutes} min`;
  return minutes < 48 * 60 ? `${Math.floor(minutes / 60)} h` : `${Math.floor(minutes / 60 / 24)} days`;
}

/**
 * A string constant of SQL in one line. Any role can choose the id of its prepared transactions, so the id
 * may contain quotes, line ends and terminal codes.
 */
function sqlString(text: string): string {
  const quoted = text.replaceAll("'", "''");
  if (!/[\\\p{C}\p{Zl}\p{Zp}]/u.test(quoted)) return `'${quoted}'`;
  const escaped = quoted.replaceAll('\\', '\\\\').replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = (character.codePointAt(0) ?? 0).toString(16);
    return `\\U${code.padStart(8, '0')}`;
  });
  return `E'${escaped}'`;
}
