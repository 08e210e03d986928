import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { withSignal } from '../../src/cli/signals.ts';
import { type Checkout, copyCheckout } from '../grown/checkout.ts';
import { runStep } from '../grown/grow.ts';
import { findLongWaits, renderUpgrade } from './render-upgrade.ts';
import { type UpgradeOptions, type UpgradeResult, upgrade } from './upgrade.ts';
import { type FromOptions, findFrom, growByExamples, hasNewMigrations, WORK_TREE } from './versions.ts';

const USAGE = `npm run upgrade -- [--from <version> | --from-folder <checkout>] [--nodes 2000] [--turns 5] [--examples]
Upgrades a database from a released version to the work tree, while services of both do all of docs/service.md.
--from         a version in migrations/releases.json. Default: the last one; before the first release, the last commit
--from-folder  a checkout of the old version
--nodes        nodes in the database before the upgrade; 0 for an empty one
--turns        how often each connection runs its flows before the migrations, after them, and on the new version
--examples     also applies the examples of migrations/README.md. Default when nothing else would be applied
The exit code is 0 when no request failed or waited too long and no row was lost, 1 otherwise, 2 for a wrong option.`;

interface Options extends FromOptions, Pick<UpgradeOptions, 'nodes' | 'turns'> {
  readonly examples: boolean;
}

function readOptions(): Options | 'help' | undefined {
  try {
    const { values } = parseArgs({
      options: {
        from: { type: 'string' },
        'from-folder': { type: 'string' },
        nodes: { type: 'string', default: '2000' },
        turns: { type: 'string', default: '5' },
        examples: { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return 'help';
    const { from, 'from-folder': fromFolder } = values;
    if (from !== undefined && fromFolder !== undefined) {
      throw new Error('--from and --from-folder exclude each other.');
    }
    return {
      ...(from !== undefined && { from }),
      ...(fromFolder !== undefined && { fromFolder }),
      nodes: wholeNumber('--nodes', values.nodes, 0, 10_000_000),
      turns: wholeNumber('--turns', values.turns, 1, 100_000),
      examples: values.examples,
    };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    return undefined;
  }
}

function wholeNumber(option: string, text: string, least: number, most: number): number {
  const value = Number(text);
  if (text !== '' && Number.isInteger(value) && value >= least && value <= most) return value;
  throw new Error(`${option} is a whole number from ${least} to ${most}, not "${text}"`);
}

async function run({ examples, ...options }: Options, signal: AbortSignal): Promise<UpgradeResult> {
  const folder = mkdtempSync(join(tmpdir(), 'fs-upgrade-from-'));
  let checkout: Checkout | undefined;
  try {
    const from = await findFrom(options, folder, signal);
    if (examples || !hasNewMigrations(from)) checkout = await copyCheckout(signal);
    const to = checkout === undefined ? WORK_TREE : await growByExamples(checkout);
    if (checkout !== undefined) await runStep(checkout, 'db:check');
    return await upgrade({ ...options, from, to, signal, onStep: (line) => console.log(line) });
  } finally {
    await checkout?.remove();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<number> {
  const options = readOptions();
  if (options === undefined) return 2;
  if (options === 'help') {
    console.log(USAGE);
    return 0;
  }
  return withSignal(async (signal) => {
    try {
      const result = await run(options, signal);
      console.log(renderUpgrade(result));
      const waits = findLongWaits(result);
      for (const wait of waits) console.log(`TOO LONG  ${wait}`);
      return result.faults.length + waits.length === 0 ? 0 : 1;
    } catch (error) {
      if (signal.aborted) {
        console.log('Interrupted; nothing is left behind.');
        return 130;
      }
      console.error(error instanceof Error ? error.message : error);
      return 1;
    }
  });
}

process.exitCode = await main();
