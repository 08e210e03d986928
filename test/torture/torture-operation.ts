import type { Client } from 'pg';
import type { Scene } from './known-nodes.ts';
import type { Ending, WrittenNode } from './recorder.ts';
import type { Random } from './seeded-random.ts';

/** An operation that a worker runs in one transaction. */
export interface Operation {
  readonly kind: string;
  /** Its weight when an operation is chosen. */
  readonly weight: number;
  /** Whether it is recorded as a command in the journal. */
  readonly journalled: boolean;
  /** Expected SQLSTATEs; any other one is a problem. Lost connections are always expected. */
  readonly expected: readonly string[];
  /** Messages that are a problem although their SQLSTATE is expected. */
  readonly never?: RegExp;
  /** Chooses the arguments; undefined when the tree has no suitable node. */
  plan(scene: Scene, random: Random): Plan | undefined;
}

export interface Plan {
  readonly mountId: string | null;
  readonly parameters: Readonly<Record<string, unknown>>;
  readonly idempotencyKey?: string;
  readonly retryFailed?: boolean;
  /** Default: read committed. */
  readonly isolation?: 'repeatable read';
  /** It must be the first to write in its transaction. It supersedes no version, so begin_work is not needed. */
  readonly isFirstWrite?: boolean;
  /** Runs inside the transaction, and returns the result for the journal. */
  work(client: Client, effects: Effects): Promise<unknown>;
}

/** Collects the effects of a transaction, which count only if it commits. */
export interface Effects {
  wrote(nodes: readonly WrittenNode[]): void;
  created(nodes: readonly WrittenNode[]): void;
  ended(entryId: string, ending: Ending): void;
  /** Counts at once, whether the transaction commits or not. */
  reading(fault: string | undefined): void;
  /** Counts at once, since the result may be lost. */
  pruned(before: Date): void;
}

/** The columns of {@link WrittenNode}. */
export const WRITTEN = 'id, version, path, size_bytes, live';

/** An operation that writes one node with one statement. */
export function writeOne(
  definition: Omit<Operation, 'plan' | 'journalled'> & {
    readonly creates?: boolean;
    choose(
      scene: Scene,
      random: Random,
    ):
      | {
          readonly mountId: string;
          readonly sql: string;
          readonly values: readonly unknown[];
          readonly key?: string;
        }
      | undefined;
  },
): Operation {
  const { choose, creates = false, ...operation } = definition;
  return {
    ...operation,
    journalled: true,
    plan(scene, random) {
      const chosen = choose(scene, random);
      if (chosen === undefined) return undefined;
      return {
        mountId: chosen.mountId,
        parameters: { values: chosen.values },
        ...(chosen.key === undefined ? {} : { idempotencyKey: chosen.key, retryFailed: random.chance(0.5) }),
        async work(client, effects) {
          const { rows } = await client.query<WrittenNode>(chosen.sql, [...chosen.values]);
          if (creates) effects.created(rows);
          else effects.wrote(rows);
          return { nodes: rows.map((row) => [row.id, row.version]) };
        },
      };
    },
  };
}

export function choose(operations: readonly Operation[], random: Random): Operation {
  let left = random.next() * operations.reduce((sum, operation) => sum + operation.weight, 0);
  for (const operation of operations) {
    left -= operation.weight;
    if (left < 0) return operation;
  }
  throw new Error('there are no operations');
}
