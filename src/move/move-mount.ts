import { setTimeout as delay } from 'node:timers/promises';
import { RunAbortedError } from '../errors.ts';
import { ACTIONS, endPreparation, isReason, type MoveScene } from './actions.ts';
import { cutOver } from './cut-over.ts';
import { failure } from './failure.ts';
import { nextAction } from './next-action.ts';
import { callOf, type Receipt, type Side } from './side.ts';

export interface MoveRun extends MoveScene {
  /** Leaves the rows of the source, which a later run erases. */
  readonly keepsSource: boolean;
  /** Ends the run between two steps. The move stays as it is, and another run goes on. */
  readonly signal: AbortSignal;
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

/** Milliseconds between two looks while the copy goes on. */
const POLL_MS = 100;
const CUT_OVERS = 3;

const LINES = {
  prepare: 'Preparing both servers',
  start: 'Publishing the mount',
  accept: 'The target accepts the mount',
  subscribe: 'The target begins to copy',
  'prove source': 'The source counts its rows',
  'prove target': 'The target copies, and counts its rows',
  'cut over': 'Cutting over',
  receive: 'The target takes writes',
  'copy sightings': 'Copying the sightings, and recounting totals',
  unsubscribe: 'Ending the copy',
  'finish source': 'Ending the move',
  erase: 'Erasing the mount on the source',
} as const;

/**
 * Moves a mount, from wherever an earlier run has left it. It asks both servers what is next, and does that.
 * @throws {MoveFailedError} when it cannot go on. The message says which server takes writes, and what to do.
 * @throws {RunAbortedError} when the signal was aborted.
 */
export async function moveMount(run: MoveRun): Promise<MoveReport> {
  const { mountKey, source, target } = run;
  const startedAt = performance.now();
  const cutOvers: CutOvers = { pauseMs: null, takenBack: 0 };
  while (await takeStep(run, cutOvers));
  await endPreparation([source, target]);
  return {
    state: 'moved',
    mount: mountKey,
    source: source.where,
    target: target.where,
    pauseMs: cutOvers.pauseMs,
    durationMs: performance.now() - startedAt,
  };
}

/** The cut-overs of this run. */
interface CutOvers {
  pauseMs: number | null;
  takenBack: number;
}

/** Does what is next. @returns whether there may be more. */
async function takeStep(run: MoveRun, cutOvers: CutOvers): Promise<boolean> {
  const { mountKey, source, target } = run;
  stopIfAborted(run);
  const decision = nextAction(await source.state(mountKey), await target.state(mountKey));
  if ('problem' in decision) throw failure(run, decision.problem);
  const { action } = decision;
  if (action === 'none' || (action === 'erase' && run.keepsSource)) return false;
  run.onStep(LINES[action]);
  if (action === 'cut over') await tryCutOver(run, cutOvers);
  else if (action === 'prove source') await prove(run, source);
  else if (action === 'prove target') await prove(run, target);
  else await ACTIONS[action](run);
  return true;
}

async function tryCutOver(run: MoveRun, cutOvers: CutOvers): Promise<void> {
  const outcome = await cutOver(run);
  if (outcome.type === 'done') {
    cutOvers.pauseMs = outcome.pauseMs;
    return;
  }
  await recover(run, outcome.why);
  if (outcome.type === 'differs') throw failure(run, `${outcome.why}. Run this with --back, and then again`);
  cutOvers.takenBack += 1;
  if (cutOvers.takenBack >= CUT_OVERS) {
    throw failure(run, `${CUT_OVERS} cut-overs did not succeed. The last one: ${outcome.why}`);
  }
  // The next attempt waits longer, for writers and for what arrives.
  await delay(1000 * cutOvers.takenBack, undefined, { signal: run.signal }).catch(() => undefined);
}

/** Repeats prove_mount until it waits for nothing. */
async function prove(run: MoveRun, side: Side): Promise<void> {
  const { mountKey, patienceMs, target } = run;
  let progress = '';
  let advancedAt = performance.now();
  for (;;) {
    stopIfAborted(run);
    const receipt = await side.ask<Receipt>(callOf('prove_mount', mountKey));
    if (receipt.waits_for === undefined) return;
    run.onProgress(`Waiting for ${receipt.waits_for}`);
    const { move } = await target.state(mountKey);
    const seen = `${receipt.waits_for} ${move?.progress ?? ''}`.replace(/\(\d+ errors[^)]*\)/, '');
    if (seen !== progress) {
      progress = seen;
      advancedAt = performance.now();
    } else if (performance.now() - advancedAt > patienceMs) {
      const why = move?.problem == null ? '' : `: ${move.problem}`;
      throw failure(
        run,
        `nothing has advanced for ${Math.round(patienceMs / 1000)} s while it waited for ${receipt.waits_for}${why}`,
      );
    }
    await delay(POLL_MS);
  }
}

/** After a cut-over that did not end well: waits until the source takes writes again. */
async function recover({ source, mountKey, withinMs, onStep }: MoveRun, why: string): Promise<void> {
  onStep(`The source takes writes again: ${why}`);
  const deadline = performance.now() + withinMs + 10_000;
  while (performance.now() < deadline) {
    try {
      await source.rows(callOf('prove_mount', mountKey));
      return;
    } catch (error) {
      if (!isReason(error, 'moves_step_check')) throw error;
    }
    await delay(POLL_MS);
  }
}

function stopIfAborted({ signal, mountKey, target }: MoveRun): void {
  if (!signal.aborted) return;
  throw new RunAbortedError(
    `Stopped on request (${signal.reason instanceof Error ? signal.reason.message : 'aborted'}). Nothing is lost: run the same command again to go on with the move of "${mountKey}" to ${target.where}, or with --back to take it back.`,
    [],
  );
}
