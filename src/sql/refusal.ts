import { REFUSAL_REASONS, type RefusalReason } from './reasons.ts';

/** SQLSTATEs of refusals: not found, conflict, invalid, and the server's own for keys and checks. */
export type RefusalCode = 'FS404' | 'FS409' | 'FS422' | '23503' | '23505' | '23514' | '23P01';

/** An error by which the schema refuses a statement, as `pg` throws it. */
export interface Refusal<Reason extends RefusalReason = RefusalReason> extends Error {
  readonly code: RefusalCode;
  /** The reason, for programs. */
  readonly constraint: Reason;
  /** What to do about it, for operators, and not for clients of a service. The server's own checks and keys have none. */
  readonly hint?: string | undefined;
}

const CODES: ReadonlySet<unknown> = new Set<RefusalCode>([
  'FS404',
  'FS409',
  'FS422',
  '23503',
  '23505',
  '23514',
  '23P01',
]);

/**
 * Whether an error is a refusal of the schema; with `reasons`, only for one of these.
 *
 * It reads the fields of the error and not its class, because a program may have several copies of `pg`. It
 * does not read `cause`, since the error of a wrapper would lack the fields that this guard promises:
 * {@link refusalOf} does.
 *
 * @example
 * try {
 *   await client.query('select * from filestore.create_node($1, $2)', [parentId, name]);
 * } catch (error) {
 *   if (isRefusal(error, 'nodes_name_taken')) return respond(409, `"${name}" exists already`);
 *   if (isRefusal(error, 'nodes_parent_missing', 'nodes_parent_deleted')) return respond(404, error.message);
 *   throw error;
 * }
 */
export function isRefusal<Reason extends RefusalReason = RefusalReason>(
  error: unknown,
  ...reasons: readonly Reason[]
): error is Refusal<Reason> {
  if (typeof error !== 'object' || error === null) return false;
  const { code, constraint, message, schema } = error as Readonly<Record<string, unknown>>;
  if (!CODES.has(code) || typeof message !== 'string') return false;
  // Another schema of the database may have a constraint of the same name.
  if (!String(code).startsWith('FS') && schema !== 'filestore') return false;
  const wanted: readonly unknown[] = reasons.length === 0 ? REFUSAL_REASONS : reasons;
  return wanted.includes(constraint);
}

/**
 * The refusal in an error, if there is one; with `reasons`, only for one of these. It is the error, or the cause
 * that a library wrapped, such as a query builder.
 *
 * @example
 * const refusal = refusalOf(error, 'nodes_name_taken');
 * if (refusal !== undefined) return respond(409, refusal.message);
 */
export function refusalOf<Reason extends RefusalReason = RefusalReason>(
  error: unknown,
  ...reasons: readonly Reason[]
): Refusal<Reason> | undefined {
  const coded = codedError(error);
  return isRefusal(coded, ...reasons) ? coded : undefined;
}

/** Refusals that may be over in a moment. */
const PASSING: readonly RefusalReason[] = [
  'backend_mounts_inactive',
  'backend_mounts_erasing',
  'backend_mounts_moving',
  'nodes_busy',
  'journal_entries_key_busy',
];

/**
 * SQLSTATEs of transactions to repeat, of locks and limits, and of lost and refused connections; codes of this
 * package and of Node.js for the last two.
 */
const UNAVAILABLE =
  /^(40001|40P01|42804|0A000|55P03|25006|25P0[34]|08...|53...|57...|CONNECTION_FAILED|CONNECTION_LOST|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EPIPE)$/;

/** Outside of the package's pool, pg has no code for a connection that ends. */
const ENDED = /^(Connection terminated|Client has encountered a connection error)/;

/**
 * Whether an error, or the cause that a library wrapped, says that the same call may succeed later: the HTTP
 * status 503. Nothing of the call was done, unless a connection was lost at a commit.
 */
export function isUnavailable(error: unknown): boolean {
  const coded = codedError(error);
  if (isRefusal(coded)) return PASSING.includes(coded.constraint);
  const { code, message } = Object(coded) as Readonly<Record<string, unknown>>;
  return typeof code === 'string' ? UNAVAILABLE.test(code) : ENDED.test(String(message));
}

/** How many causes are looked at: a chain may be a circle. */
const LONGEST_CHAIN = 10;

/** The first error of a chain of causes that has a code; without one, the last one. */
export function codedError(error: unknown): unknown {
  let current = error;
  for (let left = LONGEST_CHAIN; left > 0; left -= 1) {
    const { code, cause } = Object(current) as Readonly<Record<string, unknown>>;
    if (typeof code === 'string' || cause === undefined || cause === null) return current;
    current = cause;
  }
  return current;
}
