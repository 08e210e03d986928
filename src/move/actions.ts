import pg from 'pg';
import type { MoveAction } from './next-action.ts';
import type { OwnMove } from './own-move.ts';
import { callOf, type MoveScene, type Receipt, type Side } from './side.ts';
import { createSubscription, dropSubscription, dropUnusedSlot } from './subscription.ts';

/** The scene of a run that moves a mount. */
export interface ForwardScene extends MoveScene {
  readonly own: OwnMove;
}

/** Sightings of one call. */
const SIGHTINGS = 10_000;

type SingleAction = Exclude<MoveAction, 'copy' | 'prove source' | 'prove target' | 'cut over' | 'none'>;

/** Actions that end at once, or when their statement ends. Each can be repeated. */
export const ACTIONS: Readonly<Record<SingleAction, (scene: ForwardScene) => Promise<void>>> = {
  async prepare({ source, target }) {
    for (const side of [source, target]) await side.rows('call filestore.prepare_moves(true)');
  },
  async start(scene) {
    scene.own.begin(String((await readTicket(scene)).move));
  },
  async accept(scene) {
    await scene.target.rows(callOf('accept_move', await readTicket(scene)));
  },
  async subscribe(scene) {
    await createSubscription(scene, await readTicket(scene));
  },
  async receive(scene) {
    const late = await scene.target.ask<Receipt>(callOf('prove_mount', scene.mountKey));
    const release = await scene.source.ask<Receipt>(callOf('release_mount', scene.mountKey, late));
    await scene.target.rows(callOf('receive_mount', scene.mountKey, release));
  },
  async 'copy sightings'(scene) {
    await copySightings(scene);
    await scene.target.rows(callOf('recount_rollups', scene.mountKey));
    await dropSubscription(scene);
  },
  async 'finish source'(scene) {
    // A repeated call: someone may have stopped between the sightings and the end of the subscription.
    await copySightings(scene);
    const receipt = await scene.target.ask<Receipt>(callOf('finish_move', scene.mountKey));
    await dropUnusedSlot(scene, String(receipt.move));
    await scene.source.rows(callOf('finish_move', scene.mountKey, receipt));
  },
  async erase({ mountKey, source }) {
    await source.rows(`call filestore.erase_mount(${pg.escapeLiteral(mountKey)})`);
  },
};

/** Disables the guards of moves again, unless another mount moves or is about to. */
export async function endPreparation(sides: readonly Side[]): Promise<void> {
  for (const side of sides) {
    try {
      await side.rows('call filestore.prepare_moves(false)');
    } catch (error) {
      if (!isReason(error, 'backend_mounts_moving', 'moves_preparing')) throw error;
    }
  }
}

export function isReason(error: unknown, ...reasons: readonly string[]): boolean {
  const { constraint } = error as { readonly constraint?: unknown };
  return typeof constraint === 'string' && reasons.includes(constraint);
}

/** The ticket of the run's own move. Begins one only if the run has none: another run may have taken it back. */
async function readTicket({ mountKey, source, target, own }: ForwardScene): Promise<Receipt> {
  const { number } = await target.state(mountKey);
  const id = own.id();
  const existing = id === undefined ? [] : [id];
  return source.ask<Receipt>(callOf('start_move', mountKey, String(number), ...existing));
}

/** Reads sightings from the source in order of their nodes, and goes on after those that the target has. */
async function copySightings({ mountKey, source, target }: MoveScene): Promise<void> {
  const { mountId } = await source.state(mountKey);
  let after = await target.ask<string>(callOf('receive_sightings', mountKey, '{}', '{}', '{}'));
  for (;;) {
    const [batch] = await source.rows<{ ids: string; seen: string; reconciled: string; count: number }>(
      `select coalesce(array_agg(s.node_id order by s.node_id), '{}')::text as ids,
              coalesce(array_agg(s.last_seen_at order by s.node_id), '{}')::text as seen,
              coalesce(array_agg(s.last_reconciled_at order by s.node_id), '{}')::text as reconciled,
              count(*)::integer as count
       from (
         select s.*
         from filestore.node_sightings s
         join filestore.nodes n on n.id = s.node_id
         where n.backend_mount_id = ${mountId} and s.node_id > ${after}
         order by s.node_id
         limit ${SIGHTINGS}
       ) s`,
    );
    if (batch === undefined || batch.count === 0) return;
    after = await target.ask<string>(
      callOf('receive_sightings', mountKey, batch.ids, batch.seen, batch.reconciled),
    );
  }
}
