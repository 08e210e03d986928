import { parseArgs } from 'node:util';
import { type MoveResult, measureMove } from './measured-move.ts';

const USAGE = `npm run move:mount -- [--nodes 200000] [--writers 32] [--times 1] [--kills] [--by-hand] [--fsync on]
Moves a mount between two servers by filestore-db move while writers are at work, and compares every row.
--by-hand  by the steps of docs/scaling.md instead
--kills   kills the target during the copy, and ends apply workers and walsenders during it and after it
--times   number of moves, one after another, each on two new servers
The exit code is 0 when nothing was lost or doubled.`;

function readOptions() {
  const { values } = parseArgs({
    options: {
      nodes: { type: 'string', default: '200000' },
      writers: { type: 'string', default: '32' },
      times: { type: 'string', default: '1' },
      fsync: { type: 'string', default: 'on' },
      kills: { type: 'boolean', default: false },
      'by-hand': { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  if (values.fsync !== 'on' && values.fsync !== 'off') throw new Error(`--fsync is on or off\n${USAGE}`);
  return {
    nodes: wholeNumber('--nodes', values.nodes, 10_000_000),
    writers: wholeNumber('--writers', values.writers, 60),
    times: wholeNumber('--times', values.times, 1000),
    kills: values.kills,
    by: values['by-hand'] ? 'hand' : 'command',
    fsync: values.fsync,
  } as const;
}

function wholeNumber(option: string, text: string, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`${option} is a whole number from 1 to ${most}, not "${text}"\n${USAGE}`);
}

function describe(result: MoveResult): string {
  const { stallsMs } = result;
  const ms = (value: number | undefined) => `${Math.round(value ?? 0)} ms`;
  const rows = Object.entries(result.rows).map(([table, count]) => `${count} ${table}`);
  return [
    `  equal on both: ${rows.join(', ')}`,
    `  writers: ${result.writtenToSource} writes to the source, ${result.writtenToTarget} to the target, ${result.refused} refused`,
    `  without an answer at the cut-over: ${ms(stallsMs[Math.floor(stallsMs.length / 2)])} (median), ${ms(stallsMs.at(-1))} at most; at other moments: ${ms(result.longestGapMs)}; writers of another mount: ${ms(result.longestGapOfOthersMs)}`,
    ...result.faults.map((fault) => `  FAULT  ${fault}`),
  ].join('\n');
}

async function main(): Promise<number> {
  const options = readOptions();
  if (options === 'help') {
    console.log(USAGE);
    return 0;
  }
  let clean = 0;
  for (let time = 1; time <= options.times; time += 1) {
    console.log(`move ${time}: ${options.nodes} nodes, ${options.writers} writers`);
    const result = await measureMove({ ...options, onStep: (line) => console.log(line) });
    console.log(describe(result));
    if (result.faults.length === 0) clean += 1;
  }
  console.log(`${clean} of ${options.times} moves without a fault`);
  return clean === options.times ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
