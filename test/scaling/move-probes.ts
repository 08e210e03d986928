import { codeOf } from '../../src/cause-codes.ts';
import type { NumberedDatabase } from './two-databases.ts';
import type { MoveWalk, Receipts } from './walk-move.ts';

/** A call of one function, which is tried in a transaction and undone. */
export interface Probe {
  readonly name: string;
  readonly text: string;
  readonly values: readonly unknown[];
}

/** What a call does: `→ closed` for the step that it reaches, `same` for no change, or the reason of its refusal. */
export interface Outcome {
  readonly effect: string;
  readonly reason?: string;
  readonly hint?: string;
}

/** Every function of a move, with the receipts that there are. A procedure is tried by its first transaction. */
export function probesOf(key: string, receipts: Receipts, other: number): readonly Probe[] {
  const call = (name: string, called: string, ...values: readonly unknown[]): Probe => ({
    name,
    text: `select filestore.${called}`,
    values,
  });
  return [
    call('start_move', 'start_move($1, $2)', key, other),
    call('accept_move', 'accept_move($1)', receipts.ticket ?? {}),
    call('prove_mount', 'prove_mount($1)', key),
    call('close_mount', 'close_mount($1, $2)', key, receipts.early ?? null),
    call('release_mount', 'release_mount($1, $2)', key, receipts.late ?? null),
    call('receive_mount', 'receive_mount($1, $2)', key, receipts.release ?? null),
    call('receive_sightings', "receive_sightings($1, '{}', '{}', '{}')", key),
    call('finish_move', 'finish_move($1, $2)', key, receipts.finish ?? null),
    call('cancel_move', 'cancel_step($1, null, 10)', key),
    call('erase_mount', 'begin_erasing($1, 10)', key),
  ];
}

/** Tries a call, and undoes it. */
export async function outcomeOfProbe(
  database: NumberedDatabase,
  key: string,
  { text, values }: Probe,
): Promise<Outcome> {
  await database.query('begin');
  try {
    const before = await stateOf(database, key);
    await database.query(text, values);
    const after = await stateOf(database, key);
    if (JSON.stringify(after) === JSON.stringify(before)) return { effect: 'same' };
    return { effect: `→ ${after.erasing ? 'erased' : after.step}` };
  } catch (error) {
    if (!/^FS/.test(codeOf(error) ?? '')) throw error;
    const { constraint, hint } = error as { readonly constraint?: string; readonly hint?: string };
    return { effect: 'refused', reason: constraint ?? '', hint: hint ?? '' };
  } finally {
    await database.query('rollback');
  }
}

/** What a database says about a move: its own step and the fields that decide about writes. */
async function stateOf(database: NumberedDatabase, key: string) {
  const [row] = await database.query<{ step: string; erasing: boolean; rest: string }>(
    `select m.step, b.erasing_since is not null and m.step <> 'erasing' as erasing,
            row(m.mark, m.attempt, m.early_digest is null, b.held_by)::text as rest
     from (select 1) one
     left join filestore.moves m on m.mount_key = $1 and m.written_by = filestore.database_number()
     left join filestore.backend_mounts b on b.mount_key = $1
     order by m.id desc nulls last limit 1`,
    [key],
  );
  return { step: row?.step ?? null, erasing: row?.erasing ?? false, rest: row?.rest };
}

/** The step that a database has recorded, or `none`. */
export async function stepOn(database: NumberedDatabase, { key }: MoveWalk): Promise<string> {
  return (await stateOf(database, key)).step ?? 'none';
}
