/**
 * Whether tests that need a program of the system can run. Where it is missing, a line says that they are skipped; with
 * CI set, where nothing may be skipped, that is a failure.
 */
export function canUse(program: string, found: boolean): boolean {
  if (!found && process.env.CI) {
    throw new Error(`${program} is not installed, and with CI set no test is skipped. Install it.`);
  }
  if (!found) console.warn(`Tests are skipped: ${program} is not installed.`);
  return found;
}
