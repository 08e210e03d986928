import type { PoolClient } from 'pg';

type Callback = (error: unknown, result?: unknown) => void;
type Run = (statement: unknown, values?: unknown, callback?: Callback) => Promise<unknown>;

/** A prepared statement returns other columns than before. It fails until it is prepared again. */
const OUTDATED_PLAN = 'RevalidateCachedQuery';
/** The server's functions that fail if a table got a column while the statement waited for its lock. */
const OVERTAKEN = new Set<unknown>([OUTDATED_PLAN, 'tupledesc_match', 'build_attrmap_by_position']);

/** Whether a migration overtook the statement. The server has undone it, and it works when it is repeated. */
export function isOvertaken(error: unknown): boolean {
  const { code, routine } = error as Readonly<Record<string, unknown>>;
  return (code === '0A000' || code === '42804') && OVERTAKEN.has(routine);
}

/**
 * Makes the statements of a pool survive migrations: repeats one that was overtaken, unless it is in a
 * transaction, which is aborted. After an outdated plan, the named statements of the session run without
 * their names, and the pool replaces it.
 */
export class OvertakenStatements {
  readonly #outdated = new WeakSet<PoolClient>();

  /** Whether the session has prepared statements that fail from now on. */
  mustReconnect(client: PoolClient): boolean {
    return this.#outdated.has(client);
  }

  /**
   * For a new client of the pool.
   * @param nameError Turns an error of a statement into the one for its caller.
   */
  watch(client: PoolClient, nameError: (error: unknown) => unknown): void {
    const run = client.query.bind(client) as Run;
    const runTwice = async (statement: unknown, values: unknown) => {
      try {
        return await run(this.mustReconnect(client) ? withoutName(statement) : statement, values);
      } catch (error) {
        if (!isOvertaken(error)) throw error;
        if ((error as { readonly routine?: unknown }).routine === OUTDATED_PLAN) this.#outdated.add(client);
        if (client.getTransactionStatus() !== 'I' || !isAtomic(statement)) throw error;
        return run(withoutName(statement), values);
      }
    };
    const query: Run = (statement, values, callback) => {
      // A cursor or another query object of pg.
      if (typeof statement === 'object' && statement !== null && 'submit' in statement) {
        return run(statement, values, callback);
      }
      const done = typeof values === 'function' ? (values as Callback) : callback;
      const answer = runTwice(statement, typeof values === 'function' ? undefined : values).catch((error) => {
        throw nameError(error);
      });
      return done === undefined ? answer : answer.then((result) => done(null, result), done);
    };
    client.query = query as PoolClient['query'];
  }
}

/** Whether it is one statement that cannot commit a part of its work: several in a text and `call` can. */
function isAtomic(statement: unknown): boolean {
  const text = typeof statement === 'object' ? (statement as { readonly text?: unknown }).text : statement;
  return /^\s*(?:with|select|insert|update|delete|merge)\b[^;]*;?\s*$/i.test(String(text));
}

/** It inherits all the rest: libraries pass objects whose text is a getter. */
function withoutName(statement: unknown): unknown {
  if (typeof statement !== 'object' || statement === null) return statement;
  return Object.create(statement, { name: { value: undefined } });
}
