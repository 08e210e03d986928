import type { AccessLevel } from '../../src/access-levels.ts';
import type { AccessDescription } from './access.ts';
import type { RoutineDescription, SchemaDescription } from './description.ts';

/** Prefix of the comment of an internal table, or of a function that only functions call. A role may still have rights on it. */
const INTERNAL = 'Internal: ';

/** A function for roles of a level and of the levels above it. */
export interface CallableRoutine extends RoutineDescription {
  readonly level: AccessLevel;
}

export function isTrigger({ result }: RoutineDescription): boolean {
  return result === 'trigger' || result === 'event_trigger';
}

export function isInternal({ comment }: { readonly comment: string | null }): boolean {
  return comment?.startsWith(INTERNAL) ?? false;
}

/** The comment without the prefix of internal functions. */
export function purposeOf(routine: RoutineDescription): string {
  const comment = routine.comment ?? '';
  return isInternal(routine) ? comment.slice(INTERNAL.length) : comment;
}

/** The functions that a level may call, except the internal ones. */
export function callableRoutines(
  schema: SchemaDescription,
  { callers }: AccessDescription,
): readonly CallableRoutine[] {
  return schema.routines.flatMap((routine) => {
    const level = callers.get(routine.name);
    const isCallable = routine.kind === 'function' && !isTrigger(routine) && !isInternal(routine);
    return isCallable && level !== undefined ? [{ ...routine, level }] : [];
  });
}
