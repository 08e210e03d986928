import { paragraph } from '../text.ts';
import type { MoveStep, Side } from './side.ts';

/**
 * The first minor version, by major version, whose server waits for the transactions that the snapshot of a new slot
 * takes as committed. Later major versions always do. Before, the copy could mark their rows as those of a failed
 * transaction, on the source (PostgreSQL's commit "Wait for transactions of an initial decoding snapshot to commit").
 */
const FIRST_SAFE: ReadonlyMap<number, number> = new Map([
  [15, 20],
  [16, 16],
  [17, 12],
  [18, 7],
]);

/** The steps in which the copy has begun, or ended. */
const COPIED: readonly MoveStep[] = ['marking', 'proved', 'closed', 'released'];

/** A warning if the source can lose rows while the copy of a mount begins. */
export async function copyRisk(
  mountKey: string,
  source: Pick<Side, 'ask' | 'state'>,
): Promise<string | undefined> {
  const { move } = await source.state(mountKey);
  if (move !== undefined && COPIED.includes(move.step)) return undefined;
  const version = await source.ask<number>("select current_setting('server_version_num')::integer");
  const [major, minor] = [Math.floor(version / 10_000), version % 10_000];
  const safe = FIRST_SAFE.get(major);
  if (safe === undefined || minor >= safe) return undefined;
  return paragraph(
    `WARNING: the source runs PostgreSQL ${major}.${minor}. Before ${major}.${safe}, a server can lose a row of any`,
    'mount that is committed at the moment in which a copy begins. Update it first, or stop everything that',
    'writes to the source until all is copied.',
  );
}
