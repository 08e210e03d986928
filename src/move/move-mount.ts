import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { hasCode } from '../errors.ts';
import { paragraph } from '../text.ts';
import { ACTIONS, endPreparation, type ForwardScene, isReason } from './actions.ts';
import { cutOver } from './cut-over.ts';
import { failure } from './failure.ts';
import { watchSlots } from './lost-slot.ts';
import { type Decision, type MoveAction, nextAction } from './next-action.ts';
import { followOwnMove } from './own-move.ts';
import { type Seen, watchWait } from './patience.ts';
import { requirePlace } from './place.ts';
import { callOf, type MoveRow, type Receipt, type Side } from './side.ts';
import { type StoppableRun, stopIfAborted, stoppable } from './stoppable.ts';

export interface MoveRun extends StoppableRun {
  /** Leaves the rows of the source, which a later run erases. */
  readonly keepsSource: boolean;
  /** How long the copy may stand still. */
  readonly patienceMs: number;
  /** A step that begins. */
  readonly onStep: (line: string) => void;
  /** What is waited for. */
  readonly onProgress: (line: string) => void;
}

export interface MoveReport {
  /** `moved`: by this run, or before it. */
  readonly state: 'moved';
  readonly mount: string;
  readonly source: string;
  readonly target: string;
  /** How long no server took writes; null when the cut-over was before this run. */
  readonly pauseMs: number | null;
  readonly durationMs: number;
}

/** A run, and its one move. */
type ForwardRun = MoveRun & ForwardScene;

/** Milliseconds between two looks while the copy goes on. */
const POLL_MS = 100;
const CUT_OVERS = 3;
/** So far behind may the target be at the cut-over. close_mount allows more. */
const NEAR_BYTES = 1_000_000;
/** What prove_mount waits for on the target when everything is copied. */
const SOURCE_IS_NEXT = 'filestore.prove_mount on the source';

/** What a run prints when it begins a step. */
export const STEP_LINES = {
  prepare: 'Preparing both servers',
  start: 'Publishing the mount',
  accept: 'The target accepts the mount',
  subscribe: 'The target begins to copy',
  copy: 'The target copies',
  'prove source': 'The source counts its rows',
  'prove target': 'The target counts its rows',
  'cut over': 'Cutting over',
  receive: 'The target takes writes',
  'copy sightings': 'Copying the sightings, and recounting totals',
  'finish source': 'Ending the move',
  erase: 'Erasing the mount on the source',
} as const;

/**
 * Moves a mount, from wherever an earlier run has left it. It asks both servers what is next, and does that.
 * It ends when another run takes its move back.
 * @throws {FilestoreError} `MOVE_FAILED` when it cannot go on. The message says which server takes writes,
 * and what to do.
 * @throws {RunAbortedError} when the signal was aborted.
 */
export async function moveMount(given: MoveRun): Promise<MoveReport> {
  const { mountKey, source, target } = given;
  const startedAt = performance.now();
  const run = { ...given, own: followOwnMove(given, (await source.state(mountKey)).move) };
  const progress: RunProgress = { pauseMs: null, takenBack: 0, hasPlace: false };
  while (await takeStep(run, progress));
  await endPreparation([source, target]);
  return {
    state: 'moved',
    mount: mountKey,
    source: source.where,
    target: target.where,
    pauseMs: progress.pauseMs,
    durationMs: performance.now() - startedAt,
  };
}

interface RunProgress {
  pauseMs: number | null;
  /** Cut-overs that did not succeed. */
  takenBack: number;
  /** Whether the target was asked for the place of the mount. */
  hasPlace: boolean;
}

/** Does what is next. @returns whether there may be more. */
async function takeStep(run: ForwardRun, progress: RunProgress): Promise<boolean> {
  stopIfAborted(run);
  const decision = await decide(run);
  if ('problem' in decision) throw failure(run, decision.problem);
  const { action } = decision;
  if (action === 'none' || (action === 'erase' && run.keepsSource)) return false;
  if (decision.isNew && !progress.hasPlace) {
    await stoppable(run, () => requirePlace(run)).catch(async (error: unknown) => {
      // Another run may have begun the move in the meantime, so that its rows are in the way.
      const next = await decide(run);
      if ('problem' in next || next.isNew) throw error;
    });
    progress.hasPlace = true;
  }
  run.onStep(STEP_LINES[action]);
  try {
    await perform(run, action, progress);
  } catch (error) {
    // Whatever failed, a move that was taken back is the reason.
    if (hasCode(error, 'MOVE_FAILED')) {
      await decide(run).catch((other: unknown) => {
        throw hasCode(other, 'MOVE_FAILED') ? other : error;
      });
    }
    if (!(error instanceof pg.DatabaseError) || !(await hasMovedOn(run, action))) throw error;
  }
  return true;
}

async function decide(run: ForwardRun): Promise<Decision> {
  const { mountKey, source, target, own } = run;
  const from = await source.state(mountKey);
  own.requireOpen(from.move);
  return nextAction(from, await target.state(mountKey));
}

/** The run's own move on the source, which another run may take back at any time. */
async function readOwnMove({ mountKey, source, own }: ForwardRun): Promise<MoveRow | undefined> {
  const { move } = await source.state(mountKey);
  own.requireOpen(move);
  return move;
}

function perform(run: ForwardRun, action: Exclude<MoveAction, 'none'>, progress: RunProgress): Promise<void> {
  switch (action) {
    case 'cut over':
      return tryCutOver(run, progress);
    case 'receive':
      return ACTIONS.receive(run);
    case 'copy':
      return stoppable(run, () => prove(run, run.target, SOURCE_IS_NEXT));
    case 'prove source':
      return stoppable(run, () => proveSource(run));
    case 'prove target':
      return stoppable(run, () => prove(run, run.target));
    default:
      return stoppable(run, () => ACTIONS[action](run));
  }
}

/** Whether something else is next now: another run, which does the same, was faster. */
async function hasMovedOn(run: ForwardRun, action: MoveAction): Promise<boolean> {
  for (let look = 0; look < 10; look += 1) {
    const decision = await decide(run);
    if ('problem' in decision || decision.action !== action) return true;
    await delay(POLL_MS);
  }
  return false;
}

async function tryCutOver(run: ForwardRun, progress: RunProgress): Promise<void> {
  await stoppable(run, () => untilNear(run));
  const outcome = await cutOver(run);
  if (outcome.type === 'done') {
    progress.pauseMs = outcome.pauseMs;
    return;
  }
  if (outcome.type === 'not yet' || (await hasMovedOn(run, 'cut over'))) return;
  await recover(run, outcome.why);
  if (outcome.type === 'differs') throw failure(run, `${outcome.why}. Run this with --back, and then again`);
  progress.takenBack += 1;
  if (progress.takenBack >= CUT_OVERS) {
    throw failure(run, `${CUT_OVERS} cut-overs did not succeed. The last one: ${outcome.why}`);
  }
  // The next attempt waits longer, for writers and for what arrives.
  await delay(1000 * progress.takenBack, undefined, { signal: run.signal }).catch(() => undefined);
}

/** Counts on the source once the target has caught up, so that little is newer at the cut-over. */
async function proveSource(run: ForwardRun): Promise<void> {
  // The target's statistics know nothing of what was copied.
  await run.target.rows('analyze filestore.nodes, filestore.snapshots, filestore.journal_entries');
  await untilNear(run);
  await prove(run, run.source);
}

/** Waits while the target catches up with the log of the source. */
async function untilNear(run: ForwardRun): Promise<void> {
  const wait = watch(run);
  for (;;) {
    stopIfAborted(run);
    const move = await readOwnMove(run);
    const behind = move?.bytesBehind ?? null;
    if (move?.step === 'closed' || (behind !== null && behind < NEAR_BYTES)) return;
    const what = behind === null ? 'the target to read the log' : `the target: ${behind} bytes of log behind`;
    run.onProgress(`Waiting for ${what}`);
    wait({ step: `${move?.confirmed}`, progress: '', errors: 0 }, what);
    await delay(POLL_MS);
  }
}

/** Repeats prove_mount until it waits for nothing, or only for what is given. */
async function prove(run: ForwardRun, side: Side, last?: string): Promise<void> {
  const { mountKey, target } = run;
  const wait = watch(run);
  const requireSlots = watchSlots(run);
  for (;;) {
    stopIfAborted(run);
    await readOwnMove(run);
    const receipt = await side.ask<Receipt>(callOf('prove_mount', mountKey));
    if (receipt.waits_for === undefined || receipt.waits_for === last) return;
    const what = String(receipt.waits_for);
    run.onProgress(`Waiting for ${what}`);
    const { move } = await target.state(mountKey);
    await requireSlots(move);
    const step = `${what} ${move?.step}`.replace(/\(\d+ errors[^)]*\)/, '');
    wait({ step, progress: move?.progress ?? '', errors: move?.errors ?? 0 }, what);
    await delay(POLL_MS);
  }
}

/** A function that takes what is seen, and throws when the copy has stood still or failed for too long. */
function watch(run: ForwardRun): (seen: Seen, what: string) => void {
  const { patienceMs, target } = run;
  const whyNotLonger = watchWait(patienceMs);
  return (seen, what) => {
    const why = whyNotLonger(seen);
    if (why === undefined) return;
    const problem = paragraph(
      `the copy ${why} for ${Math.round(patienceMs / 1000)} s. It waited for ${what}.`,
      `The source takes writes. The log of ${target.where} says why.`,
      'Correct that and run this again, or take the move back with --back',
    );
    throw failure(run, problem);
  };
}

/** After a cut-over that did not end well: waits until the source takes writes again. */
async function recover({ source, mountKey, withinMs, onStep }: MoveRun, why: string): Promise<void> {
  onStep(`The source takes writes again: ${why}`);
  const deadline = performance.now() + withinMs + 10_000;
  while (performance.now() < deadline) {
    try {
      const { late } = await source.ask<Receipt>(callOf('prove_mount', mountKey));
      if (late === undefined) return;
    } catch (error) {
      if (!isReason(error, 'moves_step_check', 'moves_writers_busy')) throw error;
    }
    await delay(POLL_MS);
  }
}
