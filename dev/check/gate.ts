import type pg from 'pg';
import type { Problem } from '../sources/problem.ts';
import type { Sources } from '../sources/sources.ts';

/** The file with the exceptions from gates, and their reasons. */
export const FACTS_FILE = 'migrations/facts.ts';

/** The result of a gate. "Not run" is neither a success nor a failure. */
export type Finding =
  | { readonly state: 'passed' }
  | { readonly state: 'failed'; readonly problems: readonly Problem[] }
  | { readonly state: 'not run'; readonly reason: string };

/** A rule for a change of the schema. gate-lists.ts says where each one is called. */
export interface Gate<Subject> {
  readonly name: string;
  /** The statement that is true if it passes. */
  readonly proves: string;
  readonly evaluate: (subject: Subject) => Finding | Promise<Finding>;
}

export type GateReport = Pick<Gate<never>, 'name' | 'proves'> & Finding;

export async function runGate<Subject>(gate: Gate<Subject>, subject: Subject): Promise<GateReport> {
  return report(gate, await gate.evaluate(subject));
}

export function report(gate: Pick<Gate<never>, 'name' | 'proves'>, finding: Finding): GateReport {
  return { name: gate.name, proves: gate.proves, ...finding };
}

export function judge(problems: readonly Problem[]): Finding {
  return problems.length === 0 ? { state: 'passed' } : { state: 'failed', problems };
}

export function notRun(reason: string): Finding {
  return { state: 'not run', reason };
}

/** The input of the gates that need a server. */
export interface DatabaseSubject {
  readonly sources: Sources;
  /** Connection as a superuser. The gate says what the database must contain. */
  readonly client: pg.Client;
}
