import type { PoolClient } from 'pg';
import type { JournalEntryRow } from '../../schema/rows.d.ts';
import { codeOf } from '../cause-codes.ts';
import { callForOne, type SqlClient, type SqlFunction } from '../sql/call.ts';
import {
  type BeginCommandArguments,
  type BeginCommandResult,
  beginCommand,
  beginWork,
  type FinishCommandArguments,
  finishCommand,
} from '../sql/calls.ts';
import { isRefusal, isUnavailable } from '../sql/refusal.ts';
import { getPool } from './client.ts';
import {
  describeError,
  type ErrorDescription,
  mayBeOver,
  type RecordedError,
  recordedErrorOf,
} from './recorded-error.ts';
import { requireRetries, withLastStatement, withTransaction } from './transactions.ts';

/** A command for {@link runCommand}. `command` is its name, such as `upload`. */
export interface Command extends Omit<BeginCommandArguments, 'queue' | 'retryFailed'> {
  /** The mount on which it works, instead of `mountId`. It costs one more statement. */
  readonly mountKey?: string | undefined;
}

/** A value that JSON keeps as it is, so that replays get what the first call got. */
export type StoredResult =
  | string
  | number
  | boolean
  | null
  | readonly StoredResult[]
  | { readonly [key: string]: StoredResult | undefined };

/** What the work of a command returns: the result for the caller, and the nodes for the journal. */
export interface CommandResult<T extends StoredResult>
  extends Pick<FinishCommandArguments, 'primaryNodeId' | 'secondaryNodeId' | 'affectedNodeIds'> {
  /** At most 1 MiB as JSON. Null if there is nothing to return. */
  readonly result: T;
}

/** How {@link runCommand} runs. */
export interface CommandOptions {
  /** As of {@link withTransaction}. Default: 3. */
  readonly retries?: number | undefined;
  /**
   * Runs once, after the command is recorded and before the transaction: for what takes long or has effects
   * elsewhere, such as writing bytes. If it throws, the command has failed.
   */
  readonly prepare?: ((entry: JournalEntryRow) => Promise<void>) | undefined;
  /**
   * Which commands run again that failed under their key. `temporary`: those that may succeed now, because the
   * database could not do them then ({@link isUnavailable}), or because their worker crashed and
   * `expire_commands` ended them. Default: `temporary`.
   */
  readonly retryFailed?: 'never' | 'temporary' | 'always' | undefined;
  /**
   * What the journal keeps of an error, for replays, besides the default: all of a refusal and of an error of this
   * package; of others the name and the code, because their text may contain a secret. Each text that it returns
   * replaces the default one. What it leaves out stays, so undefined and `{}` are the default.
   * @example describeError: (error) => (error instanceof HttpError ? { message: error.message } : undefined)
   */
  readonly describeError?: ((error: unknown) => ErrorDescription | undefined) | undefined;
}

/**
 * What became of a command. With `done`, it took effect once, now or earlier. With `running`, an earlier call
 * with its key has not ended. With `failed`, an earlier call failed, and nothing changed.
 */
export type CommandOutcome<T extends StoredResult> =
  | {
      readonly state: 'done';
      /** Whether an earlier call did it. */
      readonly isReplay: boolean;
      readonly result: T;
      readonly entry: JournalEntryRow;
    }
  | { readonly state: 'running'; readonly entry: JournalEntryRow }
  | { readonly state: 'failed'; readonly error: RecordedError; readonly entry: JournalEntryRow };

/**
 * Runs a command once, and records it in the journal. It records the command, runs `work` in a transaction that
 * also records its result, and records a failure after that was rolled back. A repeat with the same
 * `idempotencyKey` does not run `work`: it returns what the first call did.
 *
 * After a lost connection, the journal tells whether the transaction was committed: then the outcome is `done`,
 * and otherwise the error is thrown. It uses one connection of {@link getPool} at a time. If the process ends,
 * or the database cannot be reached, the command stays `running` until a worker calls `expire_commands`.
 *
 * @param work Runs more than once if its transaction is repeated, so all of its effects must be in it.
 * @throws the error of `prepare` or `work`, after it was recorded.
 * @throws a refusal: `journal_entries_key_taken` when the key has another mount, principal or parameters,
 * `backend_mounts_missing` when there is no such mount.
 * @throws an error for which `isUnavailable` is true, when a connection is lost or cannot be made.
 * @example
 * const outcome = await runCommand(
 *   { command: 'rename', mountKey: 'media', principal, idempotencyKey, parameters: { nodeId, newName } },
 *   async (client) => {
 *     const { id, path } = await moveNode(client, { nodeId, newName });
 *     return { result: { id, path }, primaryNodeId: id };
 *   },
 * );
 * if (outcome.state === 'done') return respond(200, outcome.result);
 * if (outcome.state === 'running') return respond(409, 'the first request has not ended');
 * throw outcome.error;
 */
export async function runCommand<T extends StoredResult>(
  command: Command,
  work: (client: PoolClient, entry: JournalEntryRow) => Promise<CommandResult<T>>,
  options: CommandOptions = {},
): Promise<CommandOutcome<T>> {
  const { retries = 3, prepare } = options;
  requireRetries('runCommand', retries, 3);
  const { is_new, entry } = await begin(command, options);
  if (!is_new) return replayOf(entry);
  try {
    await prepare?.(entry);
    const ended = await withLastStatement(
      async (client) => {
        await beginWork(client, { entryId: entry.id });
        return work(client, entry);
      },
      (client, { result, primaryNodeId, secondaryNodeId, affectedNodeIds }) =>
        finishCommand(client, {
          entryId: entry.id,
          status: 'succeeded',
          result,
          primaryNodeId,
          secondaryNodeId,
          affectedNodeIds,
        }),
      retries,
    );
    return doneBy(ended, false);
  } catch (error) {
    const ended = await recordFailure(entry, error, options);
    // The answer of the commit was lost.
    if (ended?.status === 'succeeded') return doneBy(ended, false);
    throw error;
  }
}

async function begin(
  { mountKey, ...request }: Command,
  { retryFailed = 'temporary' }: CommandOptions,
): Promise<BeginCommandResult> {
  if (mountKey !== undefined && request.mountId != null) {
    throw new RangeError('runCommand got both mountKey and mountId. Give one of them.');
  }
  const mountId = mountKey === undefined ? request.mountId : await findMount(mountKey);
  const args = { ...request, mountId };
  const begun = await beginCommand(getPool(), { ...args, retryFailed: retryFailed === 'always' });
  const isOver = !begun.is_new && retryFailed === 'temporary' && mayBeOver(begun.entry);
  // Another call may begin it first, and then it is running.
  return isOver ? beginCommand(getPool(), { ...args, retryFailed: true }) : begun;
}

const FIND_MOUNT: SqlFunction = {
  name: 'find_mount',
  result: 'value',
  parameters: { mountKey: { name: 'mount_key', required: true, takes: 'text' } },
};

function findMount(mountKey: string): Promise<string> {
  return callForOne(getPool(), FIND_MOUNT, { mountKey });
}

function replayOf<T extends StoredResult>(entry: JournalEntryRow): CommandOutcome<T> {
  if (entry.status === 'succeeded') return doneBy(entry, true);
  if (entry.completed_at === null) return { state: 'running', entry };
  return { state: 'failed', error: recordedErrorOf(entry), entry };
}

function doneBy<T extends StoredResult>(entry: JournalEntryRow, isReplay: boolean): CommandOutcome<T> {
  return { state: 'done', isReplay, result: entry.result as T, entry };
}

/** How long the end of a lost transaction is waited for: the server may not know that its client is gone. */
const LOST_TRANSACTION_MS = 5_000;
const LOCK_NOT_AVAILABLE = '55P03';

/**
 * Ends the entry as failed. The second attempt is for an answer that was lost, or a description that is refused.
 * @returns the entry if something else had ended it; undefined if this did, or if it could not be recorded.
 */
async function recordFailure(
  { id: entryId }: JournalEntryRow,
  error: unknown,
  options: CommandOptions,
): Promise<JournalEntryRow | undefined> {
  for (const add of [options.describeError, undefined]) {
    const fail = (client: SqlClient) =>
      finishCommand(client, { entryId, status: 'failed', error: describeError(error, add) });
    try {
      // A transaction at its commit has locked the entry. After any other error, it was rolled back.
      await (isUnavailable(error) ? afterLostTransaction(fail) : fail(getPool()));
      return undefined;
    } catch (failure) {
      if (isRefusal(failure, 'journal_entries_ended')) return readEntry(entryId);
      if (codeOf(failure) === LOCK_NOT_AVAILABLE) return undefined;
    }
  }
  return undefined;
}

function afterLostTransaction<T>(work: (client: SqlClient) => Promise<T>): Promise<T> {
  return withTransaction(async (client) => {
    await client.query(`set local lock_timeout = ${LOST_TRANSACTION_MS}`);
    return work(client);
  });
}

async function readEntry(id: string): Promise<JournalEntryRow | undefined> {
  const text = 'select * from filestore.journal_entries where id = $1';
  const { rows } = await getPool().query<JournalEntryRow>(text, [id]);
  return rows[0];
}
