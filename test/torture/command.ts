import type { Client } from 'pg';
import { noteFault } from './counts.ts';
import { errorCode, isConnectionLoss, type Link } from './link.ts';
import type { Ending } from './recorder.ts';
import type { Stage } from './stage.ts';
import type { Plan } from './torture-operation.ts';

/** A command in the journal, as begin_command returned it. */
export interface Command {
  readonly id: string;
  /** Whether this worker must run it. */
  readonly isNew: boolean;
  readonly begunAt: number;
}

const ENDING = 'status, result, error, completed_at as "completedAt"';

/** Records a command in a separate transaction. */
export async function beginCommand(client: Client, stage: Stage, kind: string, plan: Plan): Promise<Command> {
  const { recorder, tally } = stage;
  const retryFailed = plan.retryFailed ?? false;
  const { rows } = await client.query<Ending & { readonly id: string; readonly isNew: boolean }>(
    `select b.is_new as "isNew", (b.entry).id, (b.entry).status, (b.entry).result, (b.entry).error,
            (b.entry).completed_at as "completedAt"
     from filestore.begin_command($1, $2, $3, 'torture', $4, executor_kind => $5, retry_failed => $6) b`,
    [kind, plan.parameters, plan.mountId, plan.idempotencyKey ?? null, 'local', retryFailed],
  );
  const [row] = rows;
  if (row === undefined) throw new Error('begin_command returned no row');
  const { id, isNew, ...ending } = row;
  if (plan.idempotencyKey !== undefined && isNew) {
    recorder.claimed(plan.idempotencyKey, { entryId: id, retryFailed });
  }
  if (!isNew) {
    tally.sharedKeys += 1;
    if (ending.completedAt !== null) recorder.ended(id, ending);
  }
  return { id, isNew, begunAt: Date.now() };
}

/**
 * Ends a command whose work failed, or whose result was lost, by what the journal has. Returns whether the work
 * was committed.
 */
export async function settle(stage: Stage, link: Link, command: Command, cause: unknown): Promise<boolean> {
  const { recorder, tally } = stage;
  const code = errorCode(cause);
  if (!isConnectionLoss(code)) recorder.failed(command.id);
  tally.settled += 1;
  for (;;) {
    try {
      const ending = await finishFailed(await link.client(), command, code);
      // It may have expired and been pruned.
      if (ending === undefined && Date.now() - command.begunAt > 10_000) return false;
      if (ending === undefined) throw new Error(`journal entry ${command.id} vanished before it ended`);
      recorder.ended(command.id, ending);
      return ending.status === 'succeeded';
    } catch (error) {
      if (stage.givenUp.aborted) throw error;
      if (isConnectionLoss(errorCode(error))) {
        link.drop();
        continue;
      }
      tally.unexpectedErrors += 1;
      noteFault(
        tally,
        `settling ${command.id}: ${errorCode(error)} ${error instanceof Error ? error.message : ''}`,
      );
      return false;
    }
  }
}

/** Marks the entry as failed, unless it has already ended. */
async function finishFailed(client: Client, command: Command, code: string): Promise<Ending | undefined> {
  try {
    const { rows } = await client.query<Ending>(
      `select ${ENDING} from filestore.finish_command($1, 'failed', error => $2)`,
      [command.id, { code }],
    );
    return rows[0];
  } catch (error) {
    if (!['FS409', 'FS404'].includes(errorCode(error))) throw error;
    const { rows } = await client.query<Ending>(
      `select ${ENDING} from filestore.journal_entries where id = $1`,
      [command.id],
    );
    return rows[0];
  }
}
