import type { ClientBase, DatabaseError, PoolClient } from 'pg';
import { splitStatements } from '../sql-text.ts';

/** Commands that end a transaction, or begin one. The server reports "rollback to savepoint" as ROLLBACK. */
const ENDS: ReadonlySet<string> = new Set(['COMMIT', 'PREPARE TRANSACTION']);
const BEGINS: ReadonlySet<string> = new Set(['BEGIN', 'START TRANSACTION']);

/** Follows a transaction by the messages of the server: what aborts it, and what ends it. */
export class TransactionWatch {
  readonly #client: ClientBase;
  #abortedBy: DatabaseError | undefined;
  /** Errors whose statements were undone by a savepoint. */
  readonly #undone = new Set<unknown>();
  #ends = 0;
  #expectedEnds = 0;
  /** After the last message. Old versions of pg do not tell it. */
  #status = 'T';
  /** In the message that the server answers now. */
  #hasRolledBack = false;
  #hasEnded = false;

  /** @param client In a transaction that did not fail. */
  constructor(client: ClientBase) {
    this.#client = client;
    const { connection } = client as PoolClient;
    connection.on('errorMessage', this.#noteError);
    connection.on('commandComplete', this.#noteCommand);
    connection.on('readyForQuery', this.#noteStatus);
  }

  end(): void {
    const { connection } = this.#client as PoolClient;
    connection.off('errorMessage', this.#noteError);
    connection.off('commandComplete', this.#noteCommand);
    connection.off('readyForQuery', this.#noteStatus);
  }

  /** The error that aborted the transaction, also after its end; otherwise undefined. */
  abortedBy(): DatabaseError | undefined {
    return this.#abortedBy;
  }

  /** The error of the server for which the work failed: it aborted the transaction, or a savepoint undid it and the work threw it on. */
  failedBy(thrown: unknown): DatabaseError | undefined {
    if (this.#abortedBy !== undefined) return this.#abortedBy;
    // Causes can form a ring.
    for (
      let error = thrown, depth = 0;
      error instanceof Error && depth < 10;
      error = error.cause, depth += 1
    ) {
      if (this.#undone.has(error)) return error as DatabaseError;
    }
    return undefined;
  }

  /** Before each statement of withTransaction that ends the transaction. */
  expectEnd(): void {
    this.#expectedEnds += 1;
  }

  /** Whether other statements ended the transaction, even if they began another one. */
  hasEndedEarly(): boolean {
    return this.#ends > this.#expectedEnds;
  }

  // The status is that before the error: later statements of an aborted transaction do not count.
  readonly #noteError = (error: DatabaseError) => {
    if (this.#status === 'T') this.#abortedBy = error;
  };

  readonly #noteCommand = ({ text: command }: { readonly text: string }) => {
    if (command === 'ROLLBACK') {
      this.#hasRolledBack = true;
      // The status tells, except after "rollback and chain".
      if (chains(textAtWork(this.#client))) this.#hasEnded = true;
    }
    if (ENDS.has(command) || (BEGINS.has(command) && this.#hasRolledBack)) this.#hasEnded = true;
  };

  readonly #noteStatus = ({ status }: { readonly status: string }) => {
    this.#status = status;
    // After "rollback to savepoint", the transaction is sound again.
    if (status === 'T') {
      if (this.#abortedBy !== undefined) this.#undone.add(this.#abortedBy);
      this.#abortedBy = undefined;
    }
    if (status === 'I' || this.#hasEnded) this.#ends += 1;
    this.#hasRolledBack = false;
    this.#hasEnded = false;
  };
}

/** The watches of savepoints, so that nested ones of a client share one: Node warns at 11 listeners. */
const shared = new WeakMap<ClientBase, { readonly watch: TransactionWatch; users: number }>();

/** Runs `work` with a watch that all callers on the client share in the meantime. */
export async function withSharedWatch<T>(
  client: ClientBase,
  work: (watch: TransactionWatch) => Promise<T>,
): Promise<T> {
  const entry = shared.get(client) ?? { watch: new TransactionWatch(client), users: 0 };
  shared.set(client, entry);
  entry.users += 1;
  try {
    return await work(entry.watch);
  } finally {
    entry.users -= 1;
    if (entry.users === 0) {
      shared.delete(client);
      entry.watch.end();
    }
  }
}

/** The text that the server answers now. pg has no public property for it. */
function textAtWork(client: ClientBase): string {
  const { _activeQuery: query } = client as { readonly _activeQuery?: { readonly text?: string } | null };
  return query?.text ?? '';
}

/** Whether a statement of the text is `rollback and chain`, or that of `commit`, which can roll back too. */
function chains(text: string): boolean {
  return splitStatements(text).some(({ tokens }) => {
    const words = tokens.map(({ kind, value }) => (kind === 'word' ? value : ''));
    return /^(abort|commit|end|rollback) (work |transaction )?and chain$/.test(words.join(' '));
  });
}
