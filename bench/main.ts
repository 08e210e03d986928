import { describeServer, openServer } from './bench-server.ts';
import { COMPARISONS } from './comparisons.ts';
import { findLoadGenerator } from './load.ts';
import type { Result } from './measure.ts';
import { HELP, type Options, readOptions } from './options.ts';
import { renderEnvironment, renderResults } from './result-tables.ts';

async function run({ names, ...context }: Options): Promise<void> {
  const load = findLoadGenerator();
  const server = await openServer(process.env);
  try {
    const environment = { ...(await describeServer(server)), load: load.name };
    const results: Result[] = [];
    const report = (...found: readonly Result[]) => {
      results.push(...found);
      for (const { what } of found) process.stderr.write(`measured: ${what}\n`);
    };
    try {
      for (const name of names)
        await COMPARISONS[name]?.measure({ ...context, server, load, report, environment });
    } finally {
      console.log([renderEnvironment(environment, context), renderResults(results)].join('\n'));
    }
  } finally {
    await server.stop();
  }
}

try {
  const options = readOptions(process.argv.slice(2));
  if (options === 'help') console.log(HELP);
  else await run(options);
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
