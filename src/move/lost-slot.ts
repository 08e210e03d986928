import pg from 'pg';
import { paragraph } from '../text.ts';
import { failure } from './failure.ts';
import { watchWait } from './patience.ts';
import type { MoveRow, MoveScene, Side } from './side.ts';

/** A target that runs commits far sooner after it has dropped a slot, even if its disk is slow. */
const MISSING_MS = 30_000;

/**
 * Watches for a table whose copy can never end. At its end, a worker of the target drops the table's slot on the
 * source, and then commits that it did. When it is killed or loses its connection in between, the next worker asks
 * for that slot again and again, and the server counts no error.
 * @returns a function that takes the move on the target.
 * @throws {FilestoreError} from that function: `MOVE_FAILED` when a slot has been missing for too long.
 */
export function watchSlots(scene: MoveScene): (move: MoveRow | undefined) => Promise<void> {
  const wait = watchWait(MISSING_MS);
  return async (move) => {
    const missing = await readMissing(scene.source, move?.tableSlots ?? []);
    const isLost = wait({ step: missing.join(' '), progress: '', errors: 0 }) !== undefined;
    if (missing.length === 0 || !isLost) return;
    const problem = paragraph(
      'the copy of a table was interrupted at its very end, and cannot go on:',
      `a slot is gone from the source (${missing.map((name) => `${name}…`).join(', ')}).`,
      'The source takes writes. Run this with --back, and then again',
    );
    throw failure(scene, problem);
  };
}

/** @param names Beginnings of names: they end with a number of the target's server. */
async function readMissing(source: Side, names: readonly string[]): Promise<readonly string[]> {
  if (names.length === 0) return [];
  const rows = await source.rows<{ name: string }>(
    `select n.name
     from unnest(array[${names.map(pg.escapeLiteral)}]) n (name)
     where not exists (select from pg_replication_slots s where starts_with(s.slot_name, n.name))
     order by n.name`,
  );
  return rows.map(({ name }) => name);
}
