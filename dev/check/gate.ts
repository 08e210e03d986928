/** Where something stands, as seen from the package. */
export interface Place {
  readonly file: string;
  /** From 1; null where the whole file is meant, or one that is missing. */
  readonly line: number | null;
}

/** Something to mend. */
export interface Problem extends Place {
  readonly what: string;
  /** What to do about it. */
  readonly remedy: string;
}

/** What a gate found. "Not run" is neither good nor bad, and is said. */
export type Finding =
  | { readonly state: 'passed' }
  | { readonly state: 'failed'; readonly problems: readonly Problem[] }
  | { readonly state: 'not run'; readonly reason: string };

/** One thing that a change of the schema must not break. */
export interface Gate<Subject> {
  readonly name: string;
  /** What is true when it passes. */
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
