import { SettingsError } from '../errors.ts';

/** Environment variables by name; `process.env` has this shape. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** The longest delay that Node's timers take. */
const LONGEST_TIMEOUT_MS = 2_147_483_647;

/** Milliseconds from the first of the variables that is set. */
export function milliseconds(
  env: Environment,
  variables: readonly string[],
  fallback: number,
  least = 0,
): number {
  return wholeNumber(env, variables, fallback, least, LONGEST_TIMEOUT_MS);
}

/**
 * A whole number from the first of the variables that is set.
 * @throws {SettingsError} naming the variable when it is no such number, or out of range.
 */
export function wholeNumber(
  env: Environment,
  variables: readonly string[],
  fallback: number,
  least: number,
  most: number,
): number {
  const variable = variables.find((name) => isSet(env[name]));
  if (variable === undefined) return fallback;
  const text = (env[variable] ?? '').trim();
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new SettingsError(
      variable,
      `${variable} is "${text}", which is not a whole number from ${least} to ${most}. Correct it, or unset it for the default of ${fallback}.`,
    );
  }
  return value;
}

/** A variable set to nothing counts as not set: that is how compose files and CI systems leave one out. */
export function isSet(value: string | undefined): boolean {
  return value !== undefined && value.trim() !== '';
}
