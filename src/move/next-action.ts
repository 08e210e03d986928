import { paragraph } from '../text.ts';
import { SEE_LOST_TARGET } from './failure.ts';
import type { SideState } from './side.ts';

/** What a move needs next. */
export type MoveAction =
  | 'prepare'
  | 'start'
  | 'accept'
  | 'subscribe'
  | 'copy'
  | 'prove source'
  | 'prove target'
  | 'cut over'
  | 'receive'
  | 'copy sightings'
  | 'finish source'
  | 'erase'
  | 'none';

export type Decision =
  | { readonly action: MoveAction /** Nothing of the move exists yet. */; readonly isNew?: boolean }
  /** It cannot go on. */
  | { readonly problem: string };

/** Tables of the publication of a move. */
const PUBLISHED_TABLES = 5;

/** Decides only by the rows of both servers, so every run decides the same. */
export function nextAction(source: SideState, target: SideState): Decision {
  const away = source.move;
  if (source.number === target.number) {
    return {
      problem: paragraph(
        `both are database ${source.number}. Give the URL of another server,`,
        'or another number by filestore.set_database_number while it is empty',
      ),
    };
  }
  const isThisMove = away?.source === source.number && away.target === target.number;
  if (source.mountId === null) {
    if (isThisMove && away.step === 'finished') return { action: 'none' };
    return { problem: 'the source has no mount of this key. Check its key, and which server is the source' };
  }
  const isNew =
    away === undefined || away.step === 'canceled' || (away.step === 'finished' && source.heldBy === null);
  if (!isNew && !isThisMove) {
    const way = `from database ${away.source} to database ${away.target}`;
    return { problem: `it moves ${way} already. Finish that move, or take it back` };
  }
  if (!isNew && away.step === 'finished') {
    // A target that was restored or failed over may lack what the source still has.
    if (target.move?.id === away.id && target.move.step === 'finished') return { action: 'erase' };
    return {
      problem: paragraph(
        'the source has given it away, but the target does not know that it has it.',
        'It may have been restored from a backup, and the rows of the source may be the only ones:',
        `keep them, and ${SEE_LOST_TARGET}.`,
        'If the mount has moved on from the target, call filestore.erase_mount on the source',
      ),
    };
  }
  if (away?.step === 'canceled' && target.move?.id === away.id && target.move.step !== 'canceled') {
    return {
      problem:
        'the target still has the copy of the move that was taken back. Run this with --back, and then again',
    };
  }
  if (!source.isPrepared || !target.isPrepared) return { action: 'prepare', isNew };
  return isNew ? { action: 'start', isNew } : goOn(source, target);
}

function goOn({ move: away }: SideState, { move }: SideState): Decision {
  if (away?.step === 'canceling') return { problem: 'it is being taken back. Run this again with --back' };
  const here = move?.id === away?.id ? move : undefined;
  if (here === undefined) {
    if (away?.step !== 'released') return { action: 'accept' };
    return {
      problem: paragraph(
        'the target does not know the move, although the source has released the mount.',
        `If it was restored or failed over, ${SEE_LOST_TARGET}`,
      ),
    };
  }
  switch (here.step) {
    case 'accepted':
      if (!here.isSubscribed) return { action: 'subscribe' };
      // The mark comes after the copy, so that little is newer than it at the cut-over.
      if (away?.step === 'copying' && (here.tablesCopied ?? 0) < PUBLISHED_TABLES) return { action: 'copy' };
      return { action: away?.step === 'proved' ? 'prove target' : 'prove source' };
    case 'proved':
      if (away?.step === 'released') return { action: 'receive' };
      return { action: away?.step === 'marking' ? 'prove source' : 'cut over' };
    case 'received':
      return { action: here.subscription === null ? 'finish source' : 'copy sightings' };
    case 'finished':
      return { action: 'finish source' };
    default:
      return { problem: 'the target takes it back. Run this again with --back' };
  }
}
