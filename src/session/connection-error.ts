import { codeOf } from '../cause-codes.ts';
import { ConnectionLostError, FilestoreError } from '../errors.ts';
import type { Database } from '../settings/database.ts';
import { paragraph, printable } from '../text.ts';

/** SQLSTATEs with which a server refuses a connection (PostgreSQL manual, appendix A). */
const REFUSALS: Readonly<Record<string, (user: string) => string>> = {
  '28P01': (user) => `the password for user ${user} is wrong. Correct it in the database URL.`,
  '28000': (user) =>
    paragraph(
      `the server's rules (pg_hba.conf) do not allow user ${user} to connect from here.`,
      "Check the user, and whether the server demands TLS (sslmode) or a client's certificate",
      '(sslcert, sslkey).',
    ),
  '3D000': () =>
    'the database does not exist. Create it (create database …), or correct the name in the URL.',
  '42501': (user) => `user ${user} may not connect to it. Grant connect on the database.`,
  '53300': () => 'the server has no connection left. Close some, or raise max_connections.',
  '57P03': () => 'the server is starting up or shutting down. Try again in a moment.',
};

/** Settings of a role or database with which a server ends sessions, by SQLSTATE. */
const ENDING_SETTINGS: Readonly<Record<string, string>> = {
  '25P03': 'idle_in_transaction_session_timeout',
  '25P04': 'transaction_timeout',
  '57P05': 'idle_session_timeout',
};

/** Node's codes for a server that cannot be reached. */
const UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'no server listens there',
  ENOENT: 'there is no socket',
  ENOTFOUND: 'the host name is unknown',
  EAI_AGAIN: 'the host name could not be resolved (temporary failure)',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
  ETIMEDOUT: 'it does not answer',
  ECONNRESET: 'it closed the connection',
  EPIPE: 'it closed the connection',
  EACCES: 'the socket may not be opened',
};

/** Codes of Node and OpenSSL for an untrusted certificate. */
const UNTRUSTED: Readonly<Record<string, string>> = {
  ERR_TLS_CERT_ALTNAME_INVALID: paragraph(
    "the server's certificate is for another host name.",
    'Use a host name from the certificate in the database URL',
  ),
  CERT_HAS_EXPIRED: "the server's certificate has expired. Renew it",
  CERT_NOT_YET_VALID: "the server's certificate is not valid yet. Check the clocks",
};

/** Codes for a certificate whose issuer is not trusted. */
const UNKNOWN_AUTHORITY: ReadonlySet<string> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_UNTRUSTED',
  'CERT_SIGNATURE_FAILURE',
]);

/** A temporary failure. It never leaves the package: callers get its `error`. */
export class TemporaryFailure extends Error {
  /**
   * How long a migration may have waited for a table's lock that it did not get; null for any other failure.
   */
  readonly lockWaitedMs: number | null;
  /**
   * Whether the cause is over, so that the next attempt needs no pause, and no time that the run has left.
   */
  readonly atOnce: boolean;

  /** @param reason One sentence for people. */
  constructor(
    readonly reason: string,
    readonly error: FilestoreError,
    { lockWaitedMs = null, atOnce = false }: Partial<Pick<TemporaryFailure, 'lockWaitedMs' | 'atOnce'>> = {},
  ) {
    super(reason);
    this.lockWaitedMs = lockWaitedMs;
    this.atOnce = atOnce;
  }
}

/** Messages of pg about a lost connection, which have no code. */
const GONE = /^(Connection terminated|Client has encountered a connection error|Client was closed|timeout e)/;

/**
 * The error for a failed attempt to connect: which database, why, and what to do. Errors of this package stay
 * as they are.
 */
export function connectionError(database: Database, cause: unknown): FilestoreError {
  if (cause instanceof FilestoreError) return cause;
  return new FilestoreError('CONNECTION_FAILED', describeRefusal(database, cause), { cause });
}

function describeRefusal({ where, config }: Database, cause: unknown): string {
  const user = config.user === undefined ? 'of this process' : `"${config.user}"`;
  const code = codeOfConnecting(cause);
  const message = messageOf(cause);
  if (code === '28000' && isUnusableRole(cause)) {
    return paragraph(
      `Cannot use ${where}: user ${user} does not exist on the server, or may not log in.`,
      'Correct the user in the database URL, or create the role (create role … login).',
    );
  }
  const refusal = REFUSALS[code];
  if (refusal !== undefined) return `Cannot use ${where}: ${refusal(user)}`;
  const distrust = UNKNOWN_AUTHORITY.has(code)
    ? paragraph(
        "the authority that issued the server's certificate is not trusted on this machine.",
        "Name the authority's certificate with sslrootcert in the database URL",
      )
    : UNTRUSTED[code];
  if (distrust !== undefined) return `Cannot trust ${where}: ${distrust} (${code}).`;
  // Errors of pg without a code.
  if (message.includes('does not support SSL')) {
    return paragraph(
      `Cannot connect to ${where} with TLS: the server does not support it.`,
      'Enable it there, or write sslmode=disable in the database URL.',
    );
  }
  if (message.includes('client password must be a')) {
    return paragraph(
      `Cannot use ${where}: the server asks user ${user} for a password, and the URL has none.`,
      'Write it into the database URL.',
    );
  }
  if (code.startsWith('ERR_SSL_')) {
    return paragraph(
      `Cannot connect to ${where} with TLS: ${code}.`,
      'Check sslcert and sslkey in the database URL, and the TLS versions of the server.',
    );
  }
  // PgBouncer refuses unknown startup options. Connections of a pool send their isolation level as one.
  if (message.includes('unsupported startup parameter')) {
    return paragraph(
      `Cannot connect to ${where}: the pooler refuses the session's options (${message}).`,
      'Set ignore_startup_parameters = options in pgbouncer.ini, or use the URL of the server',
      'itself.',
    );
  }
  return paragraph(
    `Cannot connect to ${where}: ${UNREACHABLE[code] ?? message}.`,
    'Check that the server runs, and the host and port in the database URL.',
  );
}

/**
 * The server has one SQLSTATE for pg_hba.conf and for roles. The message that distinguishes them may be
 * translated.
 */
function isUnusableRole(cause: unknown): boolean {
  return cause instanceof Error && 'routine' in cause && cause.routine === 'InitializeSessionUserId';
}

/**
 * The error for a connection that was lost during its use.
 * @param applied Names of the files that were applied before.
 * @param running Name of the file that was running.
 */
export function connectionLostError(
  where: string,
  cause: unknown,
  applied: readonly string[] = [],
  running: string | null = null,
): ConnectionLostError {
  const fate =
    running === null
      ? ''
      : ` ${running} was running; the next run finds out whether the server completed it.`;
  const kept = applied.length === 0 ? '' : ` Applied before: ${applied.join(', ')}.`;
  return new ConnectionLostError(
    paragraph(
      `${describeLoss(where, cause)}${fate}${kept} Run this again when the server`,
      'is back; applied migrations are not run twice.',
    ),
    applied,
    { cause },
  );
}

export function describeLoss(where: string, cause: unknown): string {
  const code = codeOfConnecting(cause);
  const setting = ENDING_SETTINGS[code];
  const remedy = setting && ` Set ${setting} of the role or database to 0.`;
  return `The connection to ${where} was lost: ${UNREACHABLE[code] ?? messageOf(cause)}.${remedy ?? ''}`;
}

/**
 * Whether a later attempt to connect may succeed: the server is starting, or its name cannot be resolved yet.
 */
export function isTemporary(cause: unknown): boolean {
  const code = codeOfConnecting(cause);
  // Too many connections; a server that stops, crashed or starts.
  if (/^(53300|57P0[123])$/.test(code)) return true;
  if (code === 'EACCES') return false;
  return code in UNREACHABLE || (code === '' && GONE.test(messageOf(cause)));
}

/** Whether an error means that the connection was lost, and not that the statement was wrong. */
export function isConnectionLoss(cause: unknown): boolean {
  const code = codeOfConnecting(cause);
  // Class 08: connection exceptions; 25P03, 25P04, 57P01 to 57P05: the server ended the session.
  return /^(08...|25P0[34]|57P0[1-5])$/.test(code) || code in UNREACHABLE || GONE.test(messageOf(cause));
}

function codeOfConnecting(error: unknown): string {
  // One error for each address that was tried, when a host name has several.
  return codeOf(error instanceof AggregateError ? error.errors[0] : error) ?? '';
}

function messageOf(error: unknown): string {
  return printable(error instanceof Error ? error.message.replace(/\.$/, '') : String(error));
}
