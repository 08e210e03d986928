import type { WorkflowDatabases } from './databases.ts';

/** What every step of changing the schema is given. */
export interface WorkflowContext {
  readonly databases: WorkflowDatabases;
  /** Stops it: the statement under way is cancelled, and the command fails with how things then stand. */
  readonly signal: AbortSignal;
  /** Told what is being done, for people who wait. */
  readonly onStep: (step: string) => void;
}
