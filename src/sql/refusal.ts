import { REFUSAL_REASONS, type RefusalReason } from './reasons.ts';

/** SQLSTATEs of refusals: not found, conflict, invalid, and the server's own for keys and checks. */
export type RefusalCode = 'FS404' | 'FS409' | 'FS422' | '23503' | '23505' | '23514' | '23P01';

/** An error by which the schema refuses a statement, as `pg` throws it. */
export interface Refusal<Reason extends RefusalReason = RefusalReason> extends Error {
  readonly code: RefusalCode;
  /** The reason, for programs. */
  readonly constraint: Reason;
  /** What to do about it, for people. The server's own checks and keys have none. */
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
 * does not read `cause`: if a library wraps the errors of `pg`, pass the cause.
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
