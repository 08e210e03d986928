import type { LockHolder } from '../errors.ts';
import { describeProcess } from './server-process.ts';

// Parts of queries that name holders, each the JSON of a HolderRow. They work for any role: the server hides the
// times of other roles' sessions from most, and prepared transactions from none.

/** @param a Alias of a row of pg_stat_activity, all null where the session has ended. */
export const sessionHolder = (a: string) => `pg_catalog.json_build_object(
  'kind', case
    when ${a}.pid is null then 'unknown'
    when ${a}.backend_start is null then 'hidden session'
    else 'session'
  end,
  'pid', ${a}.pid, 'role', ${a}.usename, 'applicationName', ${a}.application_name, 'connectedAt', ${a}.backend_start
)`;

/** @param p Alias of a row of pg_prepared_xacts. */
export const preparedHolder = (p: string) => `pg_catalog.json_build_object(
  'kind', 'prepared transaction',
  'gid', ${p}.gid, 'role', ${p}.owner, 'database', ${p}.database, 'preparedAt', ${p}.prepared,
  'ageMs', pg_catalog.round(1000 * extract(epoch from pg_catalog.clock_timestamp() - ${p}.prepared))
)`;

/**
 * Whether a prepared transaction, which has no process, holds a lock. Its locks share a virtual transaction id with
 * the lock on its own transaction id.
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
    (select ${preparedHolder('p')} from pg_catalog.pg_prepared_xacts p where ${isHeldByPrepared(l, 'p')} limit 1),
    '{"kind": "unknown"}'
  )
end`;

/** A holder, as returned by a query. */
export type HolderRow =
  | {
      readonly kind: 'session';
      readonly pid: number;
      readonly role: string | null;
      readonly applicationName: string | null;
      readonly connectedAt: string;
    }
  | {
      readonly kind: 'hidden session';
      readonly pid: number;
      readonly role: string | null;
      readonly applicationName: string | null;
    }
  | {
      readonly kind: 'prepared transaction';
      readonly gid: string;
      readonly role: string;
      readonly database: string;
      readonly preparedAt: string;
      readonly ageMs: number;
    }
  | { readonly kind: 'unknown' };

export const UNKNOWN_HOLDER: LockHolder = {
  kind: 'unknown',
  remedy: 'Run this again',
};

export function readHolder(row: HolderRow): LockHolder {
  switch (row.kind) {
    case 'session': {
      const { kind, pid, role, applicationName } = row;
      return {
        ...{ kind, pid, role, applicationName },
        connectedAt: new Date(row.connectedAt),
        remedy: endSession(pid),
      };
    }
    case 'hidden session': {
      const { kind, pid, role, applicationName } = row;
      return { kind, pid, role, applicationName, remedy: endSession(pid) };
    }
    case 'prepared transaction': {
      const { kind, gid, role, database, preparedAt, ageMs } = row;
      return {
        ...{ kind, gid, role, database, ageMs },
        preparedAt: new Date(preparedAt),
        remedy: `Roll it back in database "${database}", as role "${role}" or a superuser: rollback prepared ${sqlString(gid)}`,
      };
    }
    case 'unknown':
      return UNKNOWN_HOLDER;
  }
}

function endSession(pid: number): string {
  return `If its program no longer runs, or is not a migrator, end it as its role, a member of pg_signal_backend or a superuser: select pg_terminate_backend(${pid})`;
}

/** In words, such as `server process 4711, role "deployer", application "filestore migrate …"`. */
export function describeHolder(holder: LockHolder): string {
  switch (holder.kind) {
    case 'session':
    case 'hidden session':
      return describeProcess(holder);
    case 'prepared transaction':
      return `prepared transaction ${sqlString(holder.gid)} of role "${holder.role}" in database "${holder.database}", prepared at ${moment(holder.preparedAt)} (${age(holder.ageMs)} ago)`;
    case 'unknown':
      return 'a holder that ended while it was looked up';
  }
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
export function keyOf(holder: LockHolder): string {
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
 * A string constant of SQL in one line. Any login chooses the id of its prepared transactions, and it may hold quotes,
 * line ends and codes for terminals.
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
