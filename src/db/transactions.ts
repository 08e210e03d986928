import { randomUUID } from 'node:crypto';
import type { ClientBase, DatabaseError, PoolClient } from 'pg';
import { codeOf } from '../cause-codes.ts';
import { FilestoreError, hasCode, SettingsError } from '../errors.ts';
import { isUnavailable } from '../sql/refusal.ts';
import { paragraph } from '../text.ts';
import { lend, withConnection } from './client.ts';
import { isOvertaken } from './overtaken-statements.ts';
import { TransactionWatch, withSharedWatch } from './transaction-watch.ts';
import { sendAfter, untilAnswered } from './unanswered.ts';

/** How {@link withTransaction} runs. */
export interface TransactionOptions {
  /**
   * How often the transaction is repeated, at most, after a serialization failure (`40001`), a deadlock
   * (`40P01`), or a statement that a migration overtook. A whole number. Default: 0.
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
 * `cause` is that error. Also when it returned with an open cursor or stream, whose session is ended after
 * 5 s in which it transfers nothing. `TRANSACTION_ENDED` when `work` ran `commit` or `rollback`, whatever it did then, and for a statement
 * that is sent after `work` has ended.
 * @throws {SettingsError} when `retries` is not a whole number from 0.
 */
export async function withTransaction<T>(
  work: (client: PoolClient) => Promise<T>,
  { retries = 0 }: TransactionOptions = {},
): Promise<T> {
  requireRetries('withTransaction', retries, 0);
  return repeatTransaction((client) => lend(client, work), retries);
}

/**
 * The same, with a last statement that can only run in the transaction in which `work` ran: not after `work` ended
 * it, caught an error, or sent a statement that does so and did not wait for it.
 */
export async function withLastStatement<T, Result>(
  work: (client: PoolClient) => Promise<T>,
  last: (client: PoolClient, done: T) => Promise<Result>,
  retries: number,
): Promise<Result> {
  return repeatTransaction(async (client, watch) => {
    const done = await lend(client, work);
    await untilAnswered(client);
    if (watch.hasEndedEarly()) throw endedError();
    // A session that was ended has no state; the last statement fails with the loss.
    if (client.getTransactionStatus() === 'E') throw caughtError('runCommand', watch.abortedBy());
    return last(client, done);
  }, retries);
}

type Run<T> = (client: PoolClient, watch: TransactionWatch) => Promise<T>;

async function repeatTransaction<T>(run: Run<T>, retries: number): Promise<T> {
  return withConnection(async (client) => {
    for (let left = retries; ; left -= 1) {
      await client.query('begin isolation level read committed');
      const watch = new TransactionWatch(client);
      try {
        return await runTransaction(client, run, watch);
      } catch (error) {
        if (watch.hasEndedEarly()) throw endedError(error);
        if (left <= 0 || !isRepeatable(watch.failedBy(error))) throw error;
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
 * @throws an error for which `isUnavailable` is true, in place of that of `work`, when the connection was lost before
 * its changes were undone.
 */
export async function withSavepoint<T>(client: ClientBase, work: () => Promise<T>): Promise<T> {
  // A separate name, so that the end of another savepoint on this client does not end this one.
  const savepoint = `"filestore ${randomUUID()}"`;
  await client.query(`savepoint ${savepoint}`);
  return withSharedWatch(client, async (watch) => {
    try {
      const result = await work();
      await sendAfter('withSavepoint', client, `release savepoint ${savepoint}`).catch((error: unknown) => {
        throw codeOf(error) === IN_ABORTED_TRANSACTION
          ? caughtError('withSavepoint', watch.abortedBy())
          : error;
      });
      return result;
    } catch (error) {
      await sendAfter('withSavepoint', client, `rollback to savepoint ${savepoint}`).catch(
        (failure: unknown) => {
          // A caller that catches the error of `work` would go on with a transaction that is lost. After any other failure, the
          // commit fails.
          if (isUnavailable(failure)) throw failure;
        },
      );
      throw error;
    }
  });
}

/** @throws {SettingsError} when `retries` of a function is not a whole number from 0. */
export function requireRetries(name: string, retries: number, usual: number): void {
  if (Number.isInteger(retries) && retries >= 0) return;
  const message = paragraph(
    `retries of ${name} is ${retries}, which is not a whole number from 0.`,
    `Correct it, or leave it out for the default of ${usual}.`,
  );
  throw new SettingsError('retries', message);
}

async function runTransaction<T>(client: PoolClient, run: Run<T>, watch: TransactionWatch): Promise<T> {
  try {
    const result = await run(client, watch);
    if (watch.hasEndedEarly()) throw endedError();
    watch.expectEnd();
    // The server answers the commit of a transaction that failed with ROLLBACK, and not with an error.
    const { command } = await sendAfter('withTransaction', client, 'commit');
    // By a statement that the callback did not wait for.
    if (watch.hasEndedEarly()) throw endedError();
    if (command !== 'COMMIT') throw caughtError('withTransaction', watch.abortedBy());
    return result;
  } catch (error) {
    if (client.getTransactionStatus() !== 'I') {
      watch.expectEnd();
      // If it fails, the pool closes the connection.
      await sendAfter('withTransaction', client, 'rollback').catch(() => undefined);
    }
    throw error;
  }
}

function isRepeatable(error: DatabaseError | undefined): boolean {
  return error !== undefined && (REPEATABLE.has(error.code) || isOvertaken(error));
}

/** Also instead of an error of the callback, which would say that nothing was committed. */
function endedError(cause?: unknown): FilestoreError {
  if (hasCode(cause, 'TRANSACTION_ENDED')) return cause;
  const message = paragraph(
    'The callback of withTransaction ended its transaction with commit or rollback.',
    'Remove that statement: return to commit, throw to roll back.',
  );
  return new FilestoreError('TRANSACTION_ENDED', message, { cause });
}

const LOST = {
  runCommand: 'Nothing was committed',
  withTransaction: 'Nothing was committed',
  withSavepoint: 'Its changes were undone',
} as const;

function caughtError(name: keyof typeof LOST, cause: DatabaseError | undefined): FilestoreError {
  const what = cause === undefined ? '' : `: ${cause.message} (${cause.code})`;
  const message = paragraph(
    `The callback of ${name} returned after a statement had failed${what}. ${LOST[name]}.`,
    'Throw the error; or run the statement in withSavepoint, and catch the error outside of that.',
  );
  return new FilestoreError('TRANSACTION_ROLLED_BACK', message, { cause });
}
