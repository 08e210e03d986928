import type { ServerProcess } from '../errors.ts';

/** A server process in words, such as `server process 4711, role "deployer", application "filestore migrate …"`. */
export function describeProcess({ pid, role, applicationName }: ServerProcess): string {
  const parts = [`server process ${pid}`];
  if (role !== null) parts.push(`role "${role}"`);
  if (applicationName !== null && applicationName !== '') parts.push(`application "${applicationName}"`);
  return parts.join(', ');
}

/** Several, separated by semicolons; empty for none. */
export function describeProcesses(processes: readonly ServerProcess[]): string {
  return processes.map(describeProcess).join('; ');
}
