import pg from 'pg';
import { sqlStateOf } from '../cause-codes.ts';
import { paragraph } from '../text.ts';
import { failure } from './failure.ts';
import { isSlotOf, type MoveScene, type Receipt, type Side } from './side.ts';

/** SQLSTATEs of something that another run has created, as was seen before or during the statement. */
const EXISTS: readonly (string | null)[] = ['42710', '23505'];
const CANCELED = '57014';

/**
 * Creates the subscription without a connection, so that its statements have no password: the server's log
 * quotes a statement that fails. The real connection string is a setting of the session.
 */
const createStatement = (name: string, slot: string) => `do $do$
  begin
    create subscription ${name} connection 'password=unset' publication ${name}
    with (connect = false, slot_name = ${slot});
    execute format('alter subscription ${name} connection %L', current_setting('filestore.move_source'));
    alter subscription ${name} enable;
  exception
    when others or query_canceled then
      raise exception using errcode = sqlstate, message = sqlerrm;
  end $do$`;

/** Begins the copy, unless another run does so now. Goes on where an earlier run was killed. */
export async function createSubscription(scene: MoveScene, ticket: Receipt): Promise<void> {
  const { mountKey, source, target, conninfo } = scene;
  const name = pg.escapeIdentifier(`filestore_move_${ticket.move}`);
  const slot = pg.escapeLiteral(String(ticket.slot));
  const connect = async () => {
    await target.rows(`select set_config('filestore.move_source', ${pg.escapeLiteral(conninfo)}, false)`);
    await unlessItExists(target.rows(createStatement(name, slot)));
    await target.rows(`alter subscription ${name} refresh publication`);
  };
  await unlessItExists(source.rows(`select pg_create_logical_replication_slot(${slot}, 'pgoutput')`));
  const problem = await connect().then(
    () => failure(scene, `there is no publication ${name} where the URL of --from leads`),
    (error) => replicationFailure(scene, error),
  );
  const { move } = await target.state(mountKey);
  if (move?.isSubscribed) return;
  // Another run may go on.
  if (sqlStateOf(problem) === CANCELED) throw problem;
  if (move?.subscription != null) await dropDetached(target, name);
  await dropUnusedSlot(scene, String(ticket.move));
  throw problem;
}

async function unlessItExists(done: Promise<unknown>): Promise<void> {
  await done.catch((error) => {
    if (!EXISTS.includes(sqlStateOf(error))) throw error;
  });
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
    // The target was killed after it had dropped the slot, or cannot reach the source, which failed over to
    // another address. A slot that is left is dropped on the source.
    await dropDetached(target, name);
  }
}

/** Leaves the slot on the source. */
async function dropDetached(target: Side, name: string): Promise<void> {
  await target.rows(`alter subscription ${name} disable`);
  await target.rows(`alter subscription ${name} set (slot_name = none)`);
  await target.rows(`drop subscription ${name}`);
}

/**
 * Drops the slot that a target left when it was killed while it created or dropped the subscription. The
 * source would keep its log for it, without end.
 */
export async function dropUnusedSlot({ source }: MoveScene, moveId: string): Promise<void> {
  await source.rows(
    `select pg_drop_replication_slot(s.slot_name) from pg_replication_slots s
     where ${isSlotOf('s', pg.escapeLiteral(moveId))} and not s.active`,
  );
}

function replicationFailure(scene: MoveScene, error: unknown): unknown {
  if (!(error instanceof pg.DatabaseError) || error.code?.startsWith('08') !== true) return error;
  const why = error.message.replace(/\s+/g, ' ').replace(/[.?\s]+$/, '');
  const problem = paragraph(
    `the target's server cannot copy: ${why}.`,
    'It reads the source by the URL of --from, else by that of the source. Give one that is right there',
  );
  return failure(scene, problem, { cause: error });
}
