import type { WorkflowDatabases } from './databases.ts';

/** What every step of changing the schema is given. */
export interface WorkflowContext {
  readonly databases: WorkflowDatabases;
  /** Stops it: what is under way is cancelled and rolled back. */
  readonly signal: AbortSignal;
  /** Told what is being done, for people who wait. */
  readonly onStep: (step: string) => void;
}
