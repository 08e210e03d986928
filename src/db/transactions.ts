import { randomUUID } from 'node:crypto';
import type { ClientBase, DatabaseError, PoolClient } from 'pg';
import { codeOf, FilestoreError } from '../errors.ts';
import { paragraph } from '../text.ts';
import { withConnection } from './client.ts';
import { isOvertaken } from './overtaken-statements.ts';

/** How {@link withTransaction} runs. */
export interface TransactionOptions {
  /**
   * How often the transaction is repeated, at most, after a serialization failure (`40001`), a deadlock
   * (`40P01`), or a statement that a migration overtook. Default: 0.
   */
  readonly retries?: number;
}

/** SQLSTATEs of the server for "run the same transaction again". */
const REPEATABLE: ReadonlySet<string | undefined> = new Set(['40001', '40P01']);
/** SQLSTATE of any statement after one that failed. */
const IN_ABORTED_TRANSACTION = '25P02';

/**
 * Runs `work` in a READ COMMITTED transaction: committed when it returns, rolled back when it throws. With
 * `retries`, `work` may run more than once, so all of its effects must be in the transaction. After an error
 * of the server, it can only be rolled back. To catch a refusal and go on, use {@link withSavepoint}.
 * @example
 * const node = await withTransaction((client) => moveNode(client, { nodeId, newName: 'b' }), { retries: 3 });
 * @throws {FilestoreError} `TRANSACTION_ROLLED_BACK` when `work` caught an error of the server and returned;
 * `cause` is that error. `TRANSACTION_ENDED` when `work` ran `commit` or `rollback`.
 */
export async function withTransaction<T>(
  work: (client: PoolClient) => Promise<T>,
  { retries = 0 }: TransactionOptions = {},
): Promise<T> {
  return withConnection(async (client) => {
    for (let left = retries; ; left -= 1) {
      const watch = watchAborts(client);
      try {
        return await runTransaction(client, work, watch);
      } catch (error) {
        if (left <= 0 || !isRepeatable(watch.abortedBy())) throw error;
      } finally {
        watch.end();
      }
    }
  });
}

/**
 * Runs `work` after a savepoint. When it throws, its changes are undone, its locks are free again, and the
 * transaction can go on. It costs two statements. Use one at a time on a client, and not thousands in one
 * transaction.
 * @param client The client that {@link withTransaction} passed, or another within a transaction.
 * @example
 * await withTransaction(async (client) => {
 *   const file = await withSavepoint(client, () => createNode(client, { parentId, name })).catch((error) => {
 *     if (isRefusal(error, 'nodes_name_taken')) return createNode(client, { parentId, name: `${name} (2)` });
 *     throw error;
 *   });
 *   await finishCommand(client, { entryId, status: 'succeeded', affectedNodeIds: [file.id] });
 * });
 * @throws {FilestoreError} `TRANSACTION_ROLLED_BACK` as {@link withTransaction} does.
 */
export async function withSavepoint<T>(client: ClientBase, work: () => Promise<T>): Promise<T> {
  // A separate name, so that the end of another savepoint on this client does not end this one.
  const savepoint = `"filestore ${randomUUID()}"`;
  await client.query(`savepoint ${savepoint}`);
  const watch = watchAborts(client);
  try {
    const result = await work();
    await client.query(`release savepoint ${savepoint}`).catch((error: unknown) => {
      throw codeOf(error) === IN_ABORTED_TRANSACTION
        ? caughtError('withSavepoint', watch.abortedBy())
        : error;
    });
    return result;
  } catch (error) {
    // It fails only if the connection or the transaction is lost, and then so does the commit.
    await client.query(`rollback to savepoint ${savepoint}`).catch(() => undefined);
    throw error;
  } finally {
    watch.end();
  }
}

async function runTransaction<T>(
  client: PoolClient,
  work: (client: PoolClient) => Promise<T>,
  watch: AbortWatch,
): Promise<T> {
  await client.query('begin isolation level read committed');
  try {
    const result = await work(client);
    if (client.getTransactionStatus() === 'I') {
      const message = paragraph(
        'The callback of withTransaction ended its transaction with commit or rollback.',
        'Remove that statement: return to commit, throw to roll back.',
      );
      throw new FilestoreError('TRANSACTION_ENDED', message);
    }
    // The server answers the commit of a transaction that failed with ROLLBACK, and not with an error.
    const { command } = await client.query('commit');
    if (command !== 'COMMIT') throw caughtError('withTransaction', watch.abortedBy());
    return result;
  } catch (error) {
    // If it fails, the pool closes the connection.
    if (client.getTransactionStatus() !== 'I') await client.query('rollback').catch(() => undefined);
    throw error;
  }
}

/** Follows the errors of the server on a connection, also those that a callback catches. */
interface AbortWatch {
  /** The error that aborted the transaction, also after its end; otherwise undefined. */
  abortedBy(): DatabaseError | undefined;
  end(): void;
}

function watchAborts(client: ClientBase): AbortWatch {
  const { connection } = client as PoolClient;
  let abortedBy: DatabaseError | undefined;
  // The status is that before the error: later statements of an aborted transaction do not count.
  const noteError = (error: DatabaseError) => {
    if (client.getTransactionStatus() === 'T') abortedBy = error;
  };
  // After "rollback to savepoint", the transaction is sound again.
  const noteStatus = ({ status }: { readonly status: string }) => {
    if (status === 'T') abortedBy = undefined;
  };
  connection.on('errorMessage', noteError);
  connection.on('readyForQuery', noteStatus);
  return {
    abortedBy: () => abortedBy,
    end() {
      connection.off('errorMessage', noteError);
      connection.off('readyForQuery', noteStatus);
    },
  };
}

function isRepeatable(error: DatabaseError | undefined): boolean {
  return error !== undefined && (REPEATABLE.has(error.code) || isOvertaken(error));
}

const LOST = { withTransaction: 'Nothing was committed', withSavepoint: 'Its changes were undone' } as const;

function caughtError(name: keyof typeof LOST, cause: DatabaseError | undefined): FilestoreError {
  const what = cause === undefined ? '' : `: ${cause.message} (${cause.code})`;
  const message = paragraph(
    `The callback of ${name} returned after a statement had failed${what}. ${LOST[name]}.`,
    'Throw the error; or run the statement in withSavepoint, and catch the error outside of that.',
  );
  return new FilestoreError('TRANSACTION_ROLLED_BACK', message, { cause });
}
