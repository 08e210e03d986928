import { endSenders, endWorkers, killTarget } from './disturbances.ts';
import { type Block, type Printed, runBlock } from './recipe.ts';
import type { TwoServers } from './two-servers.ts';

export interface StepOptions {
  /** Kill the target during the copy, and workers and senders during the copy and after it. */
  readonly kills: boolean;
  /** Takes a line for each block that has run. */
  readonly onStep?: (line: string) => void;
  /** Receipts of earlier blocks. */
  readonly printed?: Printed;
}

/** Runs the blocks of a recipe in order. */
export async function runSteps(
  servers: TwoServers,
  steps: readonly Block[],
  { kills, onStep, printed = new Map() }: StepOptions,
): Promise<void> {
  for (const block of steps) {
    const startedAt = performance.now();
    await runBlock(servers, block, printed);
    const isCopy = block.text.includes('create subscription');
    if (isCopy && kills) await disturb(servers);
    const ms = Math.round(performance.now() - startedAt);
    onStep?.(`${String(ms).padStart(7)} ms  ${block.text.split('\n')[0]}`);
  }
}

/** Kills the target during the copy, and ends workers and senders. */
export async function disturb(servers: TwoServers): Promise<void> {
  await endSenders(servers);
  await killTarget(servers);
  await endWorkers(servers);
  await endSenders(servers);
}
