import { randomBytes } from 'node:crypto';
import { parseArgs } from 'node:util';
import { startTestServer } from '../support/servers/test-server.ts';
import { type RoundResult, runRound } from './round.ts';

const USAGE = `npm run migrate:rounds -- [--rounds 50] [--processes 20]
In each round so many processes migrate one empty database at once. It runs on the server of TEST_DATABASE_URL,
else on one of its own. The exit code is 0 when all processes of all rounds ended well and nothing was applied twice.`;

interface Options {
  readonly rounds: number;
  readonly processes: number;
}

function readOptions(): Options | 'help' {
  const { values } = parseArgs({
    options: {
      rounds: { type: 'string', default: '50' },
      processes: { type: 'string', default: '20' },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return 'help';
  return {
    rounds: wholeNumber('--rounds', values.rounds, 100_000),
    processes: wholeNumber('--processes', values.processes, 90),
  };
}

function wholeNumber(option: string, text: string, most: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= most) return value;
  throw new Error(`${option} is a whole number from 1 to ${most}, not "${text}"\n${USAGE}`);
}

/** @returns whether all went well. */
async function runRounds({ rounds, processes }: Options): Promise<boolean> {
  const server = await startTestServer();
  try {
    console.log(`${rounds} rounds of ${processes} processes on ${server.name}`);
    const prefix = `filestore_rounds_${randomBytes(4).toString('hex')}`;
    const results: RoundResult[] = [];
    for (let round = 1; round <= rounds; round += 1) {
      const result = await runRound({ adminUrl: server.adminUrl, database: `${prefix}_${round}`, processes });
      results.push(result);
      console.log(
        `round ${round}: applied ${result.applied} by ${result.workers} of ${processes} in ${Math.round(result.durationMs)} ms`,
      );
      for (const fault of result.faults) console.log(`FAULT  ${fault}`);
    }
    console.log(summarize(results, processes));
    return results.every(({ faults }) => faults.length === 0);
  } finally {
    await server.stop();
  }
}

function summarize(results: readonly RoundResult[], processes: number): string {
  const faults = results.reduce((sum, result) => sum + result.faults.length, 0);
  const times = results.map(({ durationMs }) => durationMs).sort((a, b) => a - b);
  const median = times[Math.floor(times.length / 2)] ?? 0;
  return `${results.length} rounds, ${results.length * processes} processes: ${faults} faults; a round took ${Math.round(median)} ms (median), ${Math.round(times.at(-1) ?? 0)} ms at most`;
}

try {
  const options = readOptions();
  if (options === 'help') console.log(USAGE);
  else process.exitCode = (await runRounds(options)) ? 0 : 1;
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
}
