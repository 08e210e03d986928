import pg from 'pg';
import { sqlStateOf } from '../errors.ts';
import type { MoveScene } from './actions.ts';
import { failure } from './failure.ts';

/** Begins the copy, unless another run does it at the same time. */
export async function createSubscription(scene: MoveScene, moveId: string): Promise<void> {
  const { mountKey, target, conninfo } = scene;
  const name = pg.escapeIdentifier(slotOf(moveId));
  const create = () =>
    target.rows(`create subscription ${name} connection ${pg.escapeLiteral(conninfo)} publication ${name}`);
  const isCreated = async () => (await target.state(mountKey)).move?.subscription != null;
  try {
    await create();
  } catch (error) {
    if (await isCreated()) return;
    if (!(await dropUnusedSlot(scene, moveId))) throw replicationFailure(scene, error);
    await create();
  }
}

/** Ends the copy, unless another run does it at the same time. */
export async function dropSubscription({ mountKey, target }: MoveScene): Promise<void> {
  const read = async () => (await target.state(mountKey)).move;
  const move = await read();
  if (move?.subscription == null) return;
  const name = pg.escapeIdentifier(move.subscription);
  try {
    await target.rows(`drop subscription ${name}`);
  } catch (error) {
    if ((await read())?.subscription == null) return;
    if (sqlStateOf(error) === null) throw error;
    // The target was killed after it had dropped the slot, or cannot reach the source: it failed over to another address.
    // A slot that is left is dropped on the source.
    await target.rows(`alter subscription ${name} disable`);
    await target.rows(`alter subscription ${name} set (slot_name = none)`);
    await target.rows(`drop subscription ${name}`);
  }
}

/**
 * Drops the slot that a target left when it was killed while it created or dropped the subscription. The source would
 * keep its log for it, without end.
 * @returns whether there was one.
 */
export async function dropUnusedSlot({ source }: MoveScene, moveId: string): Promise<boolean> {
  const slot = pg.escapeLiteral(slotOf(moveId));
  const unused = await source.rows(
    `select from pg_replication_slots s where s.slot_name = ${slot} and not s.active`,
  );
  if (unused.length === 0) return false;
  await source.rows(`select pg_drop_replication_slot(${slot})`);
  return true;
}

const slotOf = (moveId: string) => `filestore_move_${moveId}`;

function replicationFailure(scene: MoveScene, error: unknown): unknown {
  if (!(error instanceof pg.DatabaseError) || error.code?.startsWith('08') !== true) return error;
  return failure(
    scene,
    `the target's server cannot copy: ${error.message.replace(/\s+/g, ' ').replace(/[.?\s]+$/, '')}. It reads the source by the URL of --from, else by that of the source. Give one that is right there`,
    { cause: error },
  );
}
