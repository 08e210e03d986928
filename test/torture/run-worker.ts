import { setTimeout as delay } from 'node:timers/promises';
import type { Client } from 'pg';
import { isOfDroppedPublication } from '../support/rows/dropped-publication.ts';
import { beginCommand, type Command, settle } from './command.ts';
import { count, noteFault } from './counts.ts';
import { createLink, errorCode, isConnectionLoss, type Link } from './link.ts';
import type { Ending } from './recorder.ts';
import type { Random } from './seeded-random.ts';
import type { Stage } from './stage.ts';
import { choose, type Effects, type Operation, type Plan } from './torture-operation.ts';

/** Runs random operations one after the other, each in a transaction, until the time is over. */
export async function runWorker(
  stage: Stage,
  url: string,
  operations: readonly Operation[],
  random: Random,
): Promise<void> {
  const link = createLink(url, stage.givenUp, () => {
    stage.tally.reconnects += 1;
  });
  try {
    while (!stage.timeUp.aborted && !stage.givenUp.aborted) {
      const operation = choose(operations, random);
      const plan = operation.plan(stage.scene, random);
      if (plan === undefined) await delay(1);
      else await perform(stage, link, operation, plan);
    }
  } catch (error) {
    if (!stage.givenUp.aborted) throw error;
  } finally {
    await link.close();
  }
}

async function perform(stage: Stage, link: Link, operation: Operation, plan: Plan): Promise<void> {
  let command: Command | undefined;
  let effects: BufferedEffects | undefined;
  try {
    const client = await link.client();
    if (operation.journalled) {
      command = await beginCommand(client, stage, operation.kind, plan);
      if (!command.isNew) return;
    }
    effects = bufferEffects(stage);
    const ending = await transact(client, plan, effects, command);
    effects.keep(command);
    if (command !== undefined && ending !== undefined) stage.recorder.ended(command.id, ending);
    count(stage.tally.operations, operation.kind);
  } catch (error) {
    if (stage.givenUp.aborted) throw error;
    judge(stage, operation, error);
    await recover(link, error);
    if (command?.isNew === true && (await settle(stage, link, command, error))) effects?.keep(command);
  }
}

async function transact(
  client: Client,
  plan: Plan,
  effects: Effects & { readonly nodeIds: readonly string[] },
  command: Command | undefined,
): Promise<Ending | undefined> {
  await client.query(`begin isolation level ${plan.isolation ?? 'read committed'}`);
  if (command !== undefined && !plan.isFirstWrite) {
    await client.query('select filestore.begin_work($1)', [command.id]);
  }
  const result = await plan.work(client, effects);
  let ending: Ending | undefined;
  if (command !== undefined) {
    const { rows } = await client.query<Ending>(
      `select status, result, error, completed_at as "completedAt"
       from filestore.finish_command($1, 'succeeded', $2, affected_node_ids => $3)`,
      [command.id, JSON.stringify(result ?? null), effects.nodeIds],
    );
    ending = rows[0];
  }
  await client.query('commit');
  return ending;
}

/** Ends any open transaction, or drops the connection. */
async function recover(link: Link, error: unknown): Promise<void> {
  if (isConnectionLoss(errorCode(error))) {
    link.drop();
    return;
  }
  try {
    const client = await link.client();
    await client.query('rollback');
  } catch {
    link.drop();
  }
}

function judge(stage: Stage, operation: Operation, error: unknown): void {
  const code = errorCode(error);
  count(stage.tally.errors, code);
  const message = error instanceof Error ? error.message : String(error);
  const isExpected = operation.expected.includes(code) && !(operation.never?.test(message) ?? false);
  if (isConnectionLoss(code) || isExpected || isOfDroppedPublication(error)) return;
  if (code === '40P01') stage.tally.deadlocks += 1;
  else stage.tally.unexpectedErrors += 1;
  const detail = error instanceof Error && 'detail' in error && error.detail ? ` (${error.detail})` : '';
  noteFault(stage.tally, `${operation.kind}: ${code} ${message}${detail}`);
  if (code === '40P01') stage.onCollision();
}

interface BufferedEffects extends Effects {
  readonly nodeIds: readonly string[];
  /** The transaction was acknowledged. */
  keep(command: Command | undefined): void;
}

function bufferEffects({ recorder, tally, onCollision }: Stage): BufferedEffects {
  const pending: (() => void)[] = [];
  const nodeIds: string[] = [];
  return {
    nodeIds,
    wrote(nodes) {
      for (const node of nodes) {
        nodeIds.push(node.id);
        pending.push(() => recorder.wrote(node, false));
      }
    },
    created(nodes) {
      for (const node of nodes) {
        nodeIds.push(node.id);
        pending.push(() => recorder.wrote(node, true));
      }
    },
    ended: (entryId, ending) => pending.push(() => recorder.ended(entryId, ending)),
    reading(fault) {
      tally.readings += 1;
      if (fault === undefined) return;
      tally.wrongReadings += 1;
      noteFault(tally, fault);
      onCollision();
    },
    pruned: (before) => recorder.pruned(before),
    keep(command) {
      for (const apply of pending) apply();
      if (command !== undefined) recorder.worked(command.id, nodeIds);
    },
  };
}
