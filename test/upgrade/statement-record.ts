import { codeOf } from '../../src/cause-codes.ts';
import type { StatementClass } from './statement-classes.ts';

/** How long a statement took, including its wait for a connection that the caller has asked for. */
export interface Wait {
  /** Milliseconds since 1970. */
  readonly startedAtMs: number;
  readonly durationMs: number;
  readonly statement: string;
}

/** The statements of one class. */
export interface ClassRecord {
  count: number;
  /** By reason, or by SQLSTATE without one. */
  readonly refusals: Record<string, number>;
  /** The longest ones. */
  waits: readonly Wait[];
}

interface Queryable {
  query(...args: never[]): unknown;
}

/** Refusals that the flows of docs/service.md show. */
const SHOWN: ReadonlySet<string> = new Set(['nodes_stale']);
const KEPT_WAITS = 300;
const KEPT_FAULTS = 20;

/** What a service's statements did, by class. */
export class StatementRecord {
  readonly classes: Record<string, ClassRecord> = {};
  readonly faults: string[] = [];

  /** The same client, whose statements are recorded. */
  of<Client extends Queryable>(client: Client, statementClass: StatementClass): Client {
    const query = async (...args: never[]) => {
      const startedAtMs = Date.now();
      const started = performance.now();
      try {
        return await client.query(...args);
      } catch (error) {
        this.#refused(statementClass, error, textOf(args[0]));
        throw error;
      } finally {
        const durationMs = performance.now() - started;
        this.#ended(statementClass, { startedAtMs, durationMs, statement: textOf(args[0]) });
      }
    };
    return Object.create(client, { query: { value: query } });
  }

  fault(text: string): void {
    if (this.faults.length < KEPT_FAULTS) this.faults.push(text);
  }

  #ended({ name }: StatementClass, wait: Wait): void {
    const record = this.#record(name);
    record.count += 1;
    record.waits = [...record.waits, wait];
    if (record.waits.length > 2 * KEPT_WAITS) record.waits = longest(record.waits);
  }

  #refused({ name, overtaken }: StatementClass, error: unknown, statement: string): void {
    const code = codeOf(error) ?? 'no code';
    const { constraint } = error as { readonly constraint?: string };
    const reason = constraint ?? code;
    const { refusals } = this.#record(name);
    refusals[reason] = (refusals[reason] ?? 0) + 1;
    if (overtaken.includes(code) || SHOWN.has(reason)) return;
    this.fault(`${name}: ${error instanceof Error ? error.message : error} (${code}) in: ${statement}`);
  }

  #record(name: string): ClassRecord {
    this.classes[name] ??= { count: 0, refusals: {}, waits: [] };
    return this.classes[name];
  }
}

function longest(waits: readonly Wait[]): readonly Wait[] {
  return [...waits].sort((one, other) => other.durationMs - one.durationMs).slice(0, KEPT_WAITS);
}

function textOf(statement: unknown): string {
  const text = typeof statement === 'string' ? statement : (statement as { readonly text: string }).text;
  return text.replaceAll(/\s+/g, ' ').slice(0, 120);
}
