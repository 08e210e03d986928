/**
 * Kills a process at every point of runs of the migrations, of upkeep and of moves, and looks what the next call leaves.
 *
 *   node --import tsx test/crashes/main.ts -- --only runs --share 0.1
 */
import { parseArgs } from 'node:util';
import { compilePackage } from '../../harness/compiled.ts';
import { playPoints, sampleOf } from '../support/points.ts';
import { openCrashes, PARTS } from './crashes.ts';

const USAGE = `npm run crashes -- [--only runs,loops,moves] [--share 1] [--seed 1] [--part 1/2]
--share runs a part of all points, which the seed selects, and --part every second one. The exit code is 0 when each next call repaired everything.`;

function readNumber(name: string, value: string): number {
  const number = Number(value);
  if (value !== '' && number > 0) return number;
  throw new Error(`--${name} is a number above 0, not "${value}"\n${USAGE}`);
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string', default: PARTS.join() },
      share: { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      part: { type: 'string', default: '1/1' },
      help: { type: 'boolean', default: false },
    },
    // npm passes "--" on.
    args: process.argv.slice(2).filter((argument) => argument !== '--'),
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const names = values.only.split(',');
  const parts = PARTS.filter((part) => names.includes(part));
  if (parts.length < names.length) throw new Error(`--only takes ${PARTS.join(', ')}\n${USAGE}`);
  const share = readNumber('share', values.share);
  const seed = readNumber('seed', values.seed);
  const [at = 0, of = 0] = values.part.split('/').map((text) => readNumber('part', text));
  const compiled = await compilePackage();
  let faults = 0;
  try {
    for (const part of parts) {
      faults += await playPoints(part, await openCrashes(part), (all) =>
        sampleOf(all, share, seed).filter((_, index) => index % of === at - 1),
      );
    }
  } finally {
    compiled.remove();
  }
  console.log(`${faults} faults`);
  return faults === 0 ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
