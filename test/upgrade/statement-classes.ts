/** A way to run statements. */
export interface StatementClass {
  readonly name: string;
  /** The SQLSTATEs of failures that docs/service.md announces for it while a migration runs. The service repeats these. */
  readonly overtaken: readonly string[];
}

/** How a statement runs outside of transactions and in them. */
export interface SessionClasses {
  readonly alone: StatementClass;
  readonly inTransaction: StatementClass;
}

/** The table in "While a migration runs" of docs/service.md. A transaction is repeated after a deadlock, too. */
export const CLASSES = {
  typed: classes('typed calls', [], ['40P01']),
  typedElsewhere: classes('typed calls, other pool', [], ['40P01']),
  plain: classes('plain SQL', [], ['42804', '40P01']),
  plainElsewhere: classes('plain SQL, other pool', ['42804'], ['42804', '40P01']),
  named: classes('prepared SQL', [], ['0A000', '42804', '40P01']),
  namedElsewhere: classes('prepared SQL, other pool', ['0A000', '42804'], ['0A000', '42804', '40P01']),
  writers: { name: 'typed calls and SQL on tables, own session', overtaken: [] },
  upkeep: { name: 'pruning, as operator', overtaken: ['42804'] },
} as const satisfies Readonly<Record<string, SessionClasses | StatementClass>>;

function classes(name: string, alone: readonly string[], inTransaction: readonly string[]): SessionClasses {
  return {
    alone: { name, overtaken: alone },
    inTransaction: { name: `${name}, in a transaction`, overtaken: inTransaction },
  };
}
