/** A place in a file of the package. */
export interface Place {
  readonly file: string;
  /** From 1; null for the whole file, or a missing one. */
  readonly line: number | null;
}

/** A problem to fix. */
export interface Problem extends Place {
  readonly what: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** The result of a gate. "Not run" is neither a success nor a failure, and is reported. */
export type Finding =
  | { readonly state: 'passed' }
  | { readonly state: 'failed'; readonly problems: readonly Problem[] }
  | { readonly state: 'not run'; readonly reason: string };

/** A check of a schema change. */
export interface Gate<Subject> {
  readonly name: string;
  /** The statement that is true if it passes. */
  readonly proves: string;
  readonly look: (subject: Subject) => Finding | Promise<Finding>;
}

export type GateReport = Pick<Gate<never>, 'name' | 'proves'> & Finding;

export async function runGate<Subject>(gate: Gate<Subject>, subject: Subject): Promise<GateReport> {
  return report(gate, await gate.look(subject));
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
