import { parseArgs } from 'node:util';
import { isClean, renderProgress, renderResult } from './render-result.ts';
import { type TortureOptions, torture } from './torture.ts';

const USAGE = `npm run torture -- [--minutes 10] [--workers 32] [--seed N] [--kills 3] [--backends-per-minute 20] [--without-tree-lock]
A seed fixes what the workers choose, not what becomes of it: a concurrent run cannot be repeated.`;

function readOptions(): TortureOptions | 'help' | undefined {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: 'string', default: '10' },
        workers: { type: 'string', default: '32' },
        seed: { type: 'string', default: String(Date.now() % 1_000_000) },
        kills: { type: 'string', default: '3' },
        'backends-per-minute': { type: 'string', default: '20' },
        'without-tree-lock': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return 'help';
    const number = (
      name: Exclude<keyof typeof values, 'without-tree-lock' | 'help'>,
      low: number,
      high: number,
    ) => {
      const value = Number(values[name]);
      if (values[name] !== '' && value >= low && value <= high) return value;
      throw new Error(`--${name} is a number from ${low} to ${high}, not "${values[name]}"`);
    };
    return {
      seconds: number('minutes', 0.05, 10_000) * 60,
      workers: Math.floor(number('workers', 2, 150)),
      seed: Math.floor(number('seed', 0, 1e9)),
      kills: Math.floor(number('kills', 0, 1000)),
      backendsPerMinute: number('backends-per-minute', 0, 10_000),
      withoutTreeLock: values['without-tree-lock'],
    };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    return undefined;
  }
}

async function main(): Promise<number> {
  const options = readOptions();
  if (options === undefined) return 2;
  if (options === 'help') {
    console.log(USAGE);
    return 0;
  }
  const interrupt = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => interrupt.abort());
  console.log(`${options.workers} workers for ${Math.round(options.seconds)} s, seed ${options.seed}`);
  try {
    const result = await torture({
      ...options,
      signal: interrupt.signal,
      onProgress: (tally, elapsedMs) => console.log(renderProgress(tally, elapsedMs)),
    });
    console.log(renderResult(result));
    return isClean(result) ? 0 : 1;
  } catch (error) {
    if (!interrupt.signal.aborted) throw error;
    console.log('Interrupted: nothing was checked, and nothing is left behind.');
    return 130;
  }
}

process.exitCode = await main();
