import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startOf } from '../../harness/compiled.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { hasTerminal, startInTerminal } from '../support/command-line/terminal.ts';
import {
  type Editor,
  editorOf,
  follow,
  makeWorkflowDatabases,
  type RunningCommand,
  startWatch,
  type WorkflowEnv,
} from '../support/command-line/workflow.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { canUse } from '../support/processes/programs.ts';

const ESCAPE = '\u001b';
const CTRL_C = '\u0003';

let copy: PackageCopy;
let editor: Editor;
let env: WorkflowEnv;
let watching: RunningCommand | undefined;

beforeEach(async () => {
  copy = copyPackage({ sources: true });
  editor = editorOf(copy);
  env = await makeWorkflowDatabases();
});
afterEach(() => {
  watching?.child.kill('SIGKILL');
  copy.remove();
});

function watchInTerminal(more: Readonly<Record<string, string>> = {}): RunningCommand {
  // Without npm, which Ctrl-C also ends, sometimes with its own exit code.
  const child = startInTerminal([process.execPath, ...startOf(copy.folder, 'dev', 'cli'), 'watch'], {
    cwd: copy.folder,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, TERM: 'xterm-256color', ...env, ...more },
  });
  return follow(child, () => child.stdin?.write(CTRL_C));
}

/** Applies a change, makes it fail, and presses Ctrl-C. Returns the whole output. */
async function session(command: RunningCommand): Promise<string> {
  watching = command;
  await command.untilSays('current.sql is empty');
  editor.write('select 1;\n');
  await command.untilSays('current.sql');
  editor.write('select nothing;\n');
  await command.untilSays('column "nothing" does not exist');
  const { exitCode, output } = await command.interrupt();
  expect(output).toContain('Stopped.');
  expect(exitCode).toBe(0);
  return output;
}

describe.skipIf(!canUse('python3', hasTerminal()))('on a terminal', () => {
  test('results have colours, progress is one line that is overwritten, and Ctrl-C ends it', async () => {
    const output = await session(watchInTerminal());
    expect(output).toContain(`${ESCAPE}[32mApplied${ESCAPE}[39m current.sql`);
    expect(output).toMatch(/\[31m.*FAILED.*migrations\/current\.sql:1:8/);
    const [first = ''] = committedMigrations();
    const eraseLine = `\r${ESCAPE}[2K`;
    expect(output).toContain(`${eraseLine}running ${first} on the development database${eraseLine}`);
  });

  test('NO_COLOR removes the colours', async () => {
    const output = await session(watchInTerminal({ NO_COLOR: '1' }));
    expect(output).toContain('Applied current.sql');
    for (const colour of [31, 32, 33, 39, 90]) expect(output).not.toContain(`${ESCAPE}[${colour}m`);
  });
});

test('without a terminal there is no escape sequence, and no progress line', async () => {
  const output = await session(startWatch(copy, { ...env, TERM: 'xterm-256color' }));
  expect(output).not.toContain(ESCAPE);
  expect(output).not.toContain('running 0000');
});
