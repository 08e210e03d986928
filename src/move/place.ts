import pg from 'pg';
import type { MoveScene } from './actions.ts';

/**
 * Tries the row of the mount on the target, which undoes that.
 * @throws the target's error when a mount or rows are in the way.
 */
export async function requirePlace({
  mountKey,
  source,
  target,
}: Pick<MoveScene, 'mountKey' | 'source' | 'target'>): Promise<void> {
  const mount = await source.ask<object>(
    `select to_jsonb(m) from filestore.backend_mounts m where m.mount_key = ${pg.escapeLiteral(mountKey)}`,
  );
  const row = `jsonb_populate_record(null::filestore.backend_mounts, ${pg.escapeLiteral(JSON.stringify(mount))})`;
  await target.rows(`select filestore.require_place(${row})`);
}
