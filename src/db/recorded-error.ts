import type { JournalEntryRow } from '../../schema/rows.d.ts';
import { FilestoreError } from '../errors.ts';
import { codedError, isRefusal, isUnavailable } from '../sql/refusal.ts';

/**
 * The error of a command that failed earlier, as the journal has it. `isRefusal` recognises a refusal, so the
 * same code answers the first call and its repeats.
 */
export interface RecordedError extends Error {
  /** SQLSTATE, code of a `FilestoreError`, or the code of another error; `expired` after `expire_commands`. */
  readonly code?: string | undefined;
  /** The reason of a refusal. */
  readonly constraint?: string | undefined;
  readonly hint?: string | undefined;
  readonly schema?: string | undefined;
}

/** What the journal keeps of an error. A value that is undefined is left out. */
export type ErrorDescription = Readonly<Partial<Record<(typeof FIELDS)[number], string | undefined>>>;

const FIELDS = ['name', 'message', 'code', 'constraint', 'hint', 'schema'] as const;

/** The code of `expire_commands` in the error of a command whose worker did not end it. */
const EXPIRED = 'expired';

/** A code, and not a text that may have a secret. */
const CODE = /^\w{1,64}$/;
/** A name that the journal can store: without NUL and half characters, and short. */
const NAME = /^[^\p{Cc}\p{Cs}]{1,100}$/u;

/** The description of an error for the journal. The texts that `add` returns replace those of the default. */
export function describeError(
  error: unknown,
  add?: (error: unknown) => ErrorDescription | undefined,
): ErrorDescription {
  return { ...defaultDescription(error), ...textsOf(add?.(error)) };
}

/** Other errors than refusals, and those of this package without one, have texts that may contain a secret. */
function defaultDescription(error: unknown): ErrorDescription {
  const coded = codedError(error);
  if (isRefusal(coded)) {
    const { message, code, constraint, hint } = coded;
    // Recorded for isRefusal, which needs it for keys and checks.
    return { message, code, constraint, hint, schema: 'filestore' };
  }
  const { code } = Object(coded) as { readonly code?: unknown };
  const known = typeof code === 'string' && CODE.test(code) ? code : undefined;
  // The text of an error of this package may quote that of its cause.
  if (error instanceof FilestoreError && error.cause === undefined) {
    return { name: error.name, message: error.message, code: known };
  }
  return { name: nameOf(error), code: known };
}

function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return typeof error;
  return typeof error.name === 'string' && NAME.test(error.name) ? error.name : 'Error';
}

/** The error in an entry that failed or was canceled, whichever program wrote it. */
export function recordedErrorOf({ command, id, status, error }: JournalEntryRow): RecordedError {
  const fields = textsOf(error);
  const why = fields.code === undefined ? '' : ` with ${fields.code}`;
  const message = `command ${command} ${status === 'canceled' ? 'was canceled' : 'failed'}${why} (journal entry ${id})`;
  return Object.assign(new Error(message), fields);
}

/** The fields of a description that are texts, of a value of any type. */
function textsOf(value: unknown): ErrorDescription {
  const given = Object(value) as Readonly<Record<string, unknown>>;
  return Object.fromEntries(
    FIELDS.map((key) => [key, given[key]]).filter(([, text]) => typeof text === 'string'),
  );
}

/** Whether the failure that an entry has may be over: its worker crashed, or the database could not do it then. */
export function mayBeOver(entry: JournalEntryRow): boolean {
  if (entry.status !== 'failed') return false;
  const error = recordedErrorOf(entry);
  return error.code === EXPIRED || isUnavailable(error);
}
