import pg from 'pg';
import { paragraph } from '../text.ts';
import { failure } from './failure.ts';
import type { MoveScene } from './side.ts';

type Place = Pick<MoveScene, 'mountKey' | 'source' | 'target'>;

/** Commands that are compared at once. */
const COMMANDS = 2000;

/**
 * Tries the row of the mount on the target, which undoes that, and looks for idempotency keys that both
 * servers have.
 * @throws the target's error when a mount or rows are in the way, and `MOVE_FAILED` for a shared key.
 */
export async function requirePlace(place: Place): Promise<void> {
  const { mountKey, source, target } = place;
  const mount = await source.ask<object>(
    `select to_jsonb(m) from filestore.backend_mounts m where m.mount_key = ${pg.escapeLiteral(mountKey)}`,
  );
  const columns = pg.escapeLiteral(JSON.stringify(mount));
  const row = `jsonb_populate_record(null::filestore.backend_mounts, ${columns})`;
  await target.rows(`select filestore.require_place(${row})`);
  await requireFreeKeys(place);
}

/** The copy would stop at such a key. */
async function requireFreeKeys(place: Place): Promise<void> {
  const { mountKey, source, target } = place;
  let after = '0';
  for (;;) {
    const [batch] = await source.rows<{ ids: string; commands: string; keys: string; last: string | null }>(
      `select array_agg(j.id)::text as ids, array_agg(j.command)::text as commands,
              array_agg(j.idempotency_key)::text as keys, max(j.id)::text as last
       from (
         select j.id, j.command, j.idempotency_key
         from filestore.journal_entries j
         join filestore.backend_mounts m on m.id = j.backend_mount_id
         where m.mount_key = ${pg.escapeLiteral(mountKey)} and j.id > ${after}
           and j.idempotency_key is not null and j.status not in ('failed', 'canceled')
         order by j.id
         limit ${COMMANDS}
       ) j`,
    );
    if (batch?.last == null) return;
    const [ids, commands, keys] = [batch.ids, batch.commands, batch.keys].map(pg.escapeLiteral);
    const [shared] = await target.rows<{ here: string; there: string }>(
      `select j.id as here, k.id as there
       from unnest(${ids}::bigint[], ${commands}::text[], ${keys}::text[]) as k (id, command, key)
       join filestore.journal_entries j on j.command = k.command and j.idempotency_key = k.key
         and j.status not in ('failed', 'canceled')
       order by k.id
       limit 1`,
    );
    if (shared !== undefined) {
      const problem = paragraph(
        `journal entry ${shared.there} of the source and ${shared.here} of the target have the same command`,
        'and idempotency key, so the copy would stop there.',
        'Remove one of the two, such as by filestore.prune_journal',
      );
      throw failure(place, problem);
    }
    after = batch.last;
  }
}
