import type { ServerProcess } from '../errors.ts';

/** A server process in words, such as `server process 4711, role "deployer", application "filestore migrate …"`. */
export function describeProcess({ pid, role, applicationName }: ServerProcess): string {
  // The server's number for a transaction that was prepared and has no process any more.
  if (pid === 0) return 'a prepared transaction (select * from pg_prepared_xacts)';
  const parts = [`server process ${pid}`];
  if (role !== null) parts.push(`role "${role}"`);
  if (applicationName !== null && applicationName !== '') parts.push(`application "${applicationName}"`);
  return parts.join(', ');
}

/** Several of them; empty for none. */
export function describeProcesses(processes: readonly ServerProcess[]): string {
  return processes.map(describeProcess).join('; ');
}
