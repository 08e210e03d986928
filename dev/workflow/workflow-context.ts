import type { WorkflowDatabases } from './databases.ts';

/** The input of every step of a schema change. */
export interface WorkflowContext {
  readonly databases: WorkflowDatabases;
  /** Stops the step: the current statement is cancelled, and the error describes the state. */
  readonly signal: AbortSignal;
  /** Called with the current step, for progress messages. */
  readonly onStep: (step: string) => void;
}
