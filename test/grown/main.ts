import { parseArgs } from 'node:util';
import { withSignal } from '../../src/cli/signals.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { changesOf } from './changes.ts';
import { copyCheckout } from './checkout.ts';
import { grow } from './grow.ts';

const USAGE = `npm run test:grown -- [--all | --only <paths>] [--without-node-column]
Copies the checkout to a temporary folder, commits some migrations there as a developer does, and runs the tests.
The tests are those of the fast lane; --all runs the slow ones too.
--only runs the test files whose path holds one of these texts, such as test/cli test/migrate/report.test.ts.
--without-node-column leaves out the migration that adds a column to nodes.
The exit code is 0 when every command and every test passed, 1 when one failed, 2 for a wrong option.`;

interface Options {
  readonly all: boolean;
  readonly only: readonly string[];
  readonly nodeColumn: boolean;
}

function readOptions(): Options | 'help' | undefined {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        all: { type: 'boolean', default: false },
        only: { type: 'string', multiple: true, default: [] },
        'without-node-column': { type: 'boolean', default: false },
        help: { type: 'boolean', default: false },
      },
    });
    if (values.help) return 'help';
    if (positionals.length > 0 && values.only.length === 0) {
      throw new Error(
        `"${positionals[0]}" is not an option. To run some of the tests, write --only before their paths.`,
      );
    }
    const only = [...values.only, ...positionals];
    if (values.all && only.length > 0) throw new Error('--all and --only exclude each other.');
    return { all: values.all, only, nodeColumn: !values['without-node-column'] };
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : error}\n${USAGE}`);
    return undefined;
  }
}

async function testGrown({ all, only, nodeColumn }: Options, signal: AbortSignal): Promise<void> {
  const checkout = await copyCheckout(signal);
  try {
    console.log(`Copied the checkout, ${checkout.files} files, to ${checkout.folder}`);
    for (const change of changesOf({ nodeColumn })) await grow(checkout, change);
    const command = all || only.length > 0 ? ['npx', 'vitest', 'run', ...only] : ['npm', 'test'];
    console.log(`Tests: ${command.join(' ')}`);
    await checkout.run(command, { shown: true });
    console.log(`All passed with ${committedMigrations(checkout.folder).length} migrations.`);
  } finally {
    await checkout.remove();
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
      await testGrown(options, signal);
      return 0;
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
