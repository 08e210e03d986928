/**
 * Whether tests that need a system program can run. If it is missing, a line reports that they are skipped. With
 * CI set, no test may be skipped, so this throws.
 */
export function canUse(program: string, found: boolean): boolean {
  if (!found && process.env.CI) {
    throw new Error(`${program} is not installed, and with CI set no test is skipped. Install it.`);
  }
  if (!found) console.warn(`Tests are skipped: ${program} is not installed.`);
  return found;
}
