import type { Client } from 'pg';
import type { Scene } from './known-nodes.ts';
import type { Ending, WrittenNode } from './recorder.ts';
import type { Random } from './seeded-random.ts';

/** Something a worker does in one transaction. */
export interface Operation {
  readonly kind: string;
  /** How often it is chosen, against the others. */
  readonly weight: number;
  /** Whether it is written down as a command. */
  readonly journalled: boolean;
  /** SQLSTATEs that are an answer; any other one is a fault. Lost connections are always expected. */
  readonly expected: readonly string[];
  /** Messages that are a fault although their SQLSTATE is expected. */
  readonly never?: RegExp;
  /** Makes the choices; undefined when the tree holds nothing to choose. */
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
  /** Works inside the transaction, and returns what the journal keeps as the result. */
  work(client: Client, effects: Effects): Promise<unknown>;
}

/** What the work of a transaction did, of no account unless it commits. */
export interface Effects {
  wrote(nodes: readonly WrittenNode[]): void;
  created(nodes: readonly WrittenNode[]): void;
  ended(entryId: string, ending: Ending): void;
  /** Counts at once, whether the transaction commits or not. */
  reading(fault: string | undefined): void;
  /** Counts at once: the answer may get lost. */
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
