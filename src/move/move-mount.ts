import { setTimeout as delay } from 'node:timers/promises';
import { RunAbortedError } from '../errors.ts';
import { ACTIONS, endPreparation, isReason, type MoveScene } from './actions.ts';
import { cutOver } from './cut-over.ts';
import { failure } from './failure.ts';
import { nextAction } from './next-action.ts';
import { type Seen, watchWait } from './patience.ts';
import { requirePlace } from './place.ts';
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
 * @throws {FilestoreError} `MOVE_FAILED` when it cannot go on. The message says which server takes writes, and what to do.
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
  if (decision.isNew) await requirePlace(run);
  run.onStep(STEP_LINES[action]);
  if (action === 'cut over') await tryCutOver(run, cutOvers);
  else if (action === 'receive') await ACTIONS.receive(run);
  else if (action === 'copy') await stoppable(run, () => prove(run, target, SOURCE_IS_NEXT));
  else if (action === 'prove source') await stoppable(run, () => proveSource(run));
  else if (action === 'prove target') await stoppable(run, () => prove(run, target));
  else await stoppable(run, () => ACTIONS[action](run));
  return true;
}

async function tryCutOver(run: MoveRun, cutOvers: CutOvers): Promise<void> {
  await stoppable(run, () => untilNear(run));
  const outcome = await cutOver(run);
  if (outcome.type === 'done') {
    cutOvers.pauseMs = outcome.pauseMs;
    return;
  }
  if (outcome.type === 'not yet') return;
  await recover(run, outcome.why);
  if (outcome.type === 'differs') throw failure(run, `${outcome.why}. Run this with --back, and then again`);
  cutOvers.takenBack += 1;
  if (cutOvers.takenBack >= CUT_OVERS) {
    throw failure(run, `${CUT_OVERS} cut-overs did not succeed. The last one: ${outcome.why}`);
  }
  // The next attempt waits longer, for writers and for what arrives.
  await delay(1000 * cutOvers.takenBack, undefined, { signal: run.signal }).catch(() => undefined);
}

/** Counts on the source once the target has caught up, so that little is newer at the cut-over. */
async function proveSource(run: MoveRun): Promise<void> {
  // The target's statistics know nothing of what was copied.
  await run.target.rows('analyze filestore.nodes, filestore.snapshots, filestore.journal_entries');
  await untilNear(run);
  await prove(run, run.source);
}

/** Waits while the target catches up with the log of the source. */
async function untilNear(run: MoveRun): Promise<void> {
  const { mountKey, source } = run;
  const wait = watch(run);
  for (;;) {
    stopIfAborted(run);
    const { move } = await source.state(mountKey);
    const behind = move?.bytesBehind ?? null;
    if (move?.step === 'closed' || (behind !== null && behind < NEAR_BYTES)) return;
    const what = behind === null ? 'the target to read the log' : `the target: ${behind} bytes of log behind`;
    run.onProgress(`Waiting for ${what}`);
    wait({ step: `${move?.confirmed}`, progress: '', errors: 0 }, what);
    await delay(POLL_MS);
  }
}

/** Repeats prove_mount until it waits for nothing, or only for what is given. */
async function prove(run: MoveRun, side: Side, last?: string): Promise<void> {
  const { mountKey, target } = run;
  const wait = watch(run);
  for (;;) {
    stopIfAborted(run);
    const receipt = await side.ask<Receipt>(callOf('prove_mount', mountKey));
    if (receipt.waits_for === undefined || receipt.waits_for === last) return;
    const what = String(receipt.waits_for);
    run.onProgress(`Waiting for ${what}`);
    const { move } = await target.state(mountKey);
    const step = `${what} ${move?.step}`.replace(/\(\d+ errors[^)]*\)/, '');
    wait({ step, progress: move?.progress ?? '', errors: move?.errors ?? 0 }, what);
    await delay(POLL_MS);
  }
}

/** A function that takes what is seen, and throws when the copy has stood still or failed for too long. */
function watch(run: MoveRun): (seen: Seen, what: string) => void {
  const { patienceMs, target } = run;
  const whyNotLonger = watchWait(patienceMs);
  return (seen, what) => {
    const why = whyNotLonger(seen);
    if (why === undefined) return;
    throw failure(
      run,
      `the copy ${why} for ${Math.round(patienceMs / 1000)} s. It waited for ${what}. The source takes writes. The log of ${target.where} says why. Correct that and run this again, or take the move back with --back`,
    );
  };
}

/** Cancels the statement of a step when the run is stopped. What it has not committed is undone. */
async function stoppable(run: MoveRun, work: () => Promise<void>): Promise<void> {
  const cancel = () => {
    for (const side of [run.source, run.target]) side.cancel().catch(() => undefined);
  };
  run.signal.addEventListener('abort', cancel);
  try {
    await work();
  } catch (error) {
    stopIfAborted(run);
    throw error;
  } finally {
    run.signal.removeEventListener('abort', cancel);
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
