import { ConnectionError } from '../errors.ts';
import { type ConnectionSettings, describeConnection } from '../settings.ts';

/** SQLSTATEs with which a server refuses a connection (PostgreSQL manual, appendix A). */
const REFUSALS: Readonly<Record<string, (user: string) => string>> = {
  '28P01': (user) => `the password for user ${user} is wrong. Correct it in the database URL.`,
  '28000': (user) =>
    `the server's rules (pg_hba.conf) do not let user ${user} in from here. Check the user, and whether the server demands TLS (sslmode).`,
  '3D000': () => 'there is no such database. Create it (create database …), or correct the name in the URL.',
  '42501': (user) => `user ${user} may not connect to it. Grant connect on the database.`,
  '53300': () => 'the server has no connection left. Close some, or raise max_connections.',
  '57P03': () => 'the server is starting up or shutting down. Try again in a moment.',
};

/** Node's codes for a server that cannot be reached. */
const UNREACHABLE: Readonly<Record<string, string>> = {
  ECONNREFUSED: 'nothing listens there',
  ENOENT: 'there is no socket',
  ENOTFOUND: 'the host name is not known',
  EAI_AGAIN: 'the host name cannot be looked up now',
  EHOSTUNREACH: 'the host cannot be reached',
  ENETUNREACH: 'the network cannot be reached',
  ETIMEDOUT: 'it does not answer',
  ECONNRESET: 'it closed the connection',
  EACCES: 'the socket may not be opened',
};

/** The error for a failed attempt to connect: which database, why, and what to do. */
export function connectionError(connection: ConnectionSettings, cause: unknown): ConnectionError {
  const where = describeConnection(connection);
  const code = codeOf(cause);
  const refusal = REFUSALS[code];
  if (refusal !== undefined) {
    const user = connection.user === undefined ? 'of this process' : `"${connection.user}"`;
    return new ConnectionError(`Cannot use ${where}: ${refusal(user)}`, { cause });
  }
  const reason = UNREACHABLE[code] ?? messageOf(cause);
  return new ConnectionError(
    `Cannot connect to ${where}: ${reason}. Check that the server runs, and the host and port in the database URL.`,
    { cause },
  );
}

function codeOf(error: unknown): string {
  // One error for each address that was tried, when a host name has several.
  if (error instanceof AggregateError) return codeOf(error.errors[0]);
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : '';
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message.replace(/\.$/, '') : String(error);
}
