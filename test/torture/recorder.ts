/** What the server returned about the end of a command. */
export interface Ending {
  readonly status: string;
  readonly result: unknown;
  readonly error: unknown;
  readonly completedAt: Date;
}

/** A node as the server returned it to a writer. */
export interface WrittenNode {
  readonly id: string;
  readonly version: number;
  readonly path: string;
  readonly size_bytes: string;
  readonly live: boolean;
}

export interface Claim {
  readonly entryId: string;
  readonly retryFailed: boolean;
}

/** Records outside the server what the server acknowledged. None of it may be missing at the end. */
export interface Recorder {
  readonly endings: ReadonlyMap<string, Ending>;
  /** Commands whose worker got an error. */
  readonly failures: ReadonlySet<string>;
  readonly created: ReadonlySet<string>;
  readonly written: ReadonlyMap<string, WrittenNode>;
  /** The nodes that each committed command wrote. */
  readonly works: ReadonlyMap<string, readonly string[]>;
  /** The workers that got is_new for an idempotency key. */
  readonly claims: ReadonlyMap<string, readonly Claim[]>;
  /** Commands for which the server returned two different ends. */
  readonly contradictions: readonly string[];
  /** Entries that ended before this moment may have been pruned. */
  readonly prunedBefore: Date;
  ended(entryId: string, ending: Ending): void;
  failed(entryId: string): void;
  wrote(node: WrittenNode, created: boolean): void;
  worked(entryId: string, nodeIds: readonly string[]): void;
  claimed(key: string, claim: Claim): void;
  pruned(before: Date): void;
}

export function createRecorder(): Recorder {
  const endings = new Map<string, Ending>();
  const failures = new Set<string>();
  const created = new Set<string>();
  const written = new Map<string, WrittenNode>();
  const works = new Map<string, readonly string[]>();
  const claims = new Map<string, Claim[]>();
  const contradictions: string[] = [];
  let prunedBefore = new Date(0);
  return {
    endings,
    failures,
    created,
    written,
    works,
    claims,
    contradictions,
    get prunedBefore() {
      return prunedBefore;
    },
    ended(entryId, ending) {
      const known = endings.get(entryId);
      if (known !== undefined && !isSameEnding(known, ending)) {
        contradictions.push(`entry ${entryId}: ${describeEnding(known)}, then ${describeEnding(ending)}`);
      }
      endings.set(entryId, known ?? ending);
    },
    failed: (entryId) => failures.add(entryId),
    wrote(node, isNew) {
      written.set(`${node.id}/${node.version}`, node);
      if (isNew) created.add(node.id);
    },
    worked: (entryId, nodeIds) => works.set(entryId, nodeIds),
    claimed: (key, claim) => claims.set(key, [...(claims.get(key) ?? []), claim]),
    pruned(before) {
      if (before > prunedBefore) prunedBefore = before;
    },
  };
}

export function isSameEnding(one: Ending, other: Ending): boolean {
  return (
    one.completedAt.getTime() === other.completedAt.getTime() && describeEnding(one) === describeEnding(other)
  );
}

/** Objects are from `jsonb`, which has a fixed order of keys. */
export function describeEnding({ status, result, error }: Ending): string {
  return `${status} ${JSON.stringify(result)} ${JSON.stringify(error)}`;
}
