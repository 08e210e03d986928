import { endSenders, endWorkers, killTarget } from './disturbances.ts';
import { type Block, runBlock } from './recipe.ts';
import type { TwoServers } from './two-servers.ts';

export interface StepOptions {
  /** Kill the target during the copy, and workers and senders during the copy and after it. */
  readonly kills: boolean;
  /** Takes a line for each block that has run. */
  readonly onStep?: (line: string) => void;
  readonly before?: (block: Block) => Promise<void>;
  readonly after?: (block: Block) => Promise<void>;
}

/** Runs the blocks of a recipe in order. One that waits ends with the block after it. */
export async function runSteps(
  servers: TwoServers,
  steps: readonly Block[],
  { kills, onStep, before, after }: StepOptions,
): Promise<void> {
  let waiting: Promise<void> | undefined;
  const report = (block: Block, startedAt: number, note = '') => {
    const ms = Math.round(performance.now() - startedAt);
    onStep?.(`${String(ms).padStart(7)} ms  ${block.text.split('\n')[0]}${note}`);
  };
  for (const block of steps) {
    await before?.(block);
    const startedAt = performance.now();
    if (block.mode === 'waiting') {
      waiting = runBlock(servers, block);
      // Its failure is reported when it is awaited.
      waiting.catch(() => undefined);
      continue;
    }
    const isCopy = block.mode === 'repeated' && block.text.includes('pg_subscription_rel');
    if (isCopy && kills) await disturb(servers);
    await runBlock(servers, block);
    if (isCopy && kills) {
      await endWorkers(servers);
      await endSenders(servers);
    }
    report(block, startedAt);
    await after?.(block);
    if (waiting !== undefined) {
      await waiting;
      report(block, startedAt, ', and all of it has arrived');
      waiting = undefined;
    }
  }
}

async function disturb(servers: TwoServers): Promise<void> {
  await endSenders(servers);
  await killTarget(servers);
  await endWorkers(servers);
}
