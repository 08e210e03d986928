// Codes of errors that the server, pg or Node throws, which errors of this package have as their cause.

/** SQLSTATE of a server's error, or Node's code; undefined for an error that has none. */
export function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** Every SQLSTATE of the server has a digit. Node's codes for connections, such as `EPIPE`, have none. */
const SQLSTATE = /^(?=.*\d)[0-9A-Z]{5}$/;

/** SQLSTATE of a server's error; null for any other error, such as those of Node's connections. */
export function sqlStateOf(error: unknown): string | null {
  const code = codeOf(error);
  return code !== undefined && SQLSTATE.test(code) ? code : null;
}
