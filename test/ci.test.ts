import { execFile } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { PACKAGE_ROOT } from '../src/package-root.ts';

interface Job {
  readonly strategy: { readonly matrix: Matrix };
  readonly env?: Readonly<Record<string, string>>;
  readonly steps: readonly Step[];
}

interface Matrix {
  readonly node?: readonly string[];
  readonly postgres?: readonly string[];
  readonly include?: readonly { readonly node: string; readonly role: Role; readonly postgres?: string }[];
}

type Role = 'superuser' | 'owner';

interface Step {
  readonly uses?: string;
  readonly with?: Readonly<Record<string, unknown>>;
  readonly run?: string;
}

const read = (file: string) => readFileSync(join(PACKAGE_ROOT, file), 'utf8');
const found = (text: string, pattern: RegExp) =>
  pattern.exec(text)?.slice(1) ?? expect.fail(`nothing matches ${pattern}`);

const matrixValue = (name: string) => `\${{ matrix.${name} }}`;

const { jobs }: { readonly jobs: Readonly<Record<string, Job>> } = parse(read('.github/workflows/ci.yml'));
const manifest = JSON.parse(read('package.json'));
const ciRun = read('.ci/run');

const commandsOf = ({ steps }: Job) => steps.flatMap(({ run }) => run ?? []);
const jobOf = (command: string) =>
  Object.values(jobs).find((job) => commandsOf(job).includes(command)) ??
  expect.fail(`no job runs "${command}"`);

/** Major versions of PostgreSQL that the README promises. */
const [first = '', last = ''] = found(read('README.md'), /supports\s+PostgreSQL (\d+) to (\d+)/);
const majors = Array.from({ length: Number(last) - Number(first) + 1 }, (_, index) =>
  String(Number(first) + index),
);
/** Versions of Node.js that CONTRIBUTING.md promises; of the oldest, the release that package.json asks for. */
const [list = ''] = found(read('CONTRIBUTING.md'), /Node\.js ([\d, ]+ and \d+) are\s+supported/);
const [oldest = ''] = found(manifest.engines.node, /^>=(\S+)$/);
const nodes = list.match(/\d+/g)?.map((major) => (oldest.startsWith(`${major}.`) ? oldest : major));

describe('the workflow', () => {
  test('runs the fast lane on every promised PostgreSQL with every promised Node.js', () => {
    const { postgres, node } = jobOf('npm test').strategy.matrix;
    expect({ postgres, node }).toEqual({ postgres: majors, node: nodes });
    expect(nodes).toContain(oldest);
  });

  test('runs the slow lane on each PostgreSQL once, and on each Node.js', () => {
    const { include = [] } = jobOf('npm run test:slow').strategy.matrix;
    expect(include.map(({ postgres }) => postgres)).toEqual(majors);
    expect(new Set(include.map(({ node }) => node))).toEqual(new Set(nodes));
  });

  test('runs both lanes as a superuser and as an ordinary owner, the fast one on every server', () => {
    const { include: ofNodes = [] } = jobOf('npm test').strategy.matrix;
    // An entry that names no server adds its role to every pair with that Node.js.
    expect(ofNodes.map(({ node, postgres }) => [node, postgres])).toEqual(
      nodes?.map((node) => [node, undefined]),
    );
    const { include: ofPairs = [] } = jobOf('npm run test:slow').strategy.matrix;
    for (const entries of [ofNodes, ofPairs]) {
      expect(new Set(entries.map(({ role }) => role))).toEqual(new Set(['superuser', 'owner']));
    }
  });

  test('runs the checks on every promised Node.js', () => {
    expect(jobOf('npm run db:check').strategy.matrix).toEqual({ node: nodes });
  });

  test('uses what its matrix says, and no other server', () => {
    for (const [name, { strategy, steps, env }] of Object.entries(jobs)) {
      const setup = steps.find(({ uses }) => uses?.startsWith('actions/setup-node@'));
      expect(setup?.with, name).toMatchObject({ 'node-version': matrixValue('node') });
      if (strategy.matrix.postgres === undefined && strategy.matrix.include === undefined) continue;
      expect(env, name).toEqual({
        TEST_POSTGRES: 'container',
        TEST_POSTGRES_IMAGE: `postgres:${matrixValue('postgres')}`,
        TEST_ROLE: matrixValue('role'),
      });
    }
  });

  test('runs the commands of .ci/run, each in one job, and the tests with new migrations', () => {
    const lines = ciRun.match(/^(?:npm|\.ci\/install)\b.*$/gm)?.map((line) => line.replace(/ ".*"$/, ''));
    const commands = Object.values(jobs).flatMap(commandsOf);
    expect([...new Set(commands)].sort()).toEqual([...(lines ?? []), 'npm run test:grown'].sort());
    const setUp = ['.ci/install', 'npm ci'];
    const lanes = commands.filter((command) => !setUp.includes(command));
    expect(lanes).toHaveLength(new Set(lanes).size);
  });
});

test('CONTRIBUTING.md names every command that the workflow runs', () => {
  const text = read('CONTRIBUTING.md');
  for (const command of Object.values(jobs).flatMap(commandsOf)) {
    if (command.startsWith('npm'))
      expect(text, command).toMatch(new RegExp(`^${command}$|\`${command}\``, 'm'));
  }
});

test('docs/compatibility.md says until when each promised server is supported', () => {
  const dates = [...read('docs/compatibility.md').matchAll(/^\| PostgreSQL (\d+) \| .*20\d\d/gm)];
  expect(dates.map(([, major]) => major)).toEqual(majors);
});

test('.nvmrc has the oldest Node.js that is promised', () => {
  expect(read('.nvmrc').trim()).toBe(`${oldest}.0`);
});

describe('.ci/run', () => {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'filestore-ci-'));
    for (const name of ['.ci', 'bin']) mkdirSync(join(folder, name));
    writeProgram('.ci/run', ciRun.replaceAll('/usr/lib/postgresql', join(folder, 'servers')));
    for (const program of ['.ci/install', 'bin/npm', 'bin/npx']) writePrinter(program);
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));

  function writeProgram(path: string, text: string): void {
    writeFileSync(join(folder, path), text);
    chmodSync(join(folder, path), 0o755);
  }

  /** Writes a program that does nothing but print its name, its server and its arguments. */
  const writePrinter = (path: string, more = '') =>
    writeProgram(path, `#!/bin/sh\necho "${path} [$TEST_POSTGRES_BIN$TEST_ROLE] $*"\n${more}`);

  const binOf = (major: string) => join(folder, 'servers', major, 'bin');
  function installServer(major: string): void {
    mkdirSync(binOf(major), { recursive: true });
    writeProgram(join('servers', major, 'bin', 'initdb'), '');
  }

  const run = () =>
    promisify(execFile)(join(folder, '.ci', 'run'), {
      env: { PATH: [join(folder, 'bin'), process.env.PATH].join(delimiter) },
    });

  const servers = found(ciRun, /^servers=\((.*)\)$/m)[0]?.split(' ') ?? [];

  test('has the oldest and the newest server, and the newest Node.js', () => {
    expect(servers).toEqual([majors[0], majors.at(-1)]);
    expect(found(ciRun, /^node=(.*)$/m)).toEqual([nodes?.at(-1)]);
  });

  test.each([[[]], [servers.slice(0, 1)], [servers.slice(1)], [servers]])(
    'with the servers %j, tests these, and names the others',
    async (installed) => {
      for (const major of installed) installServer(major);
      const { stdout } = await run();
      expect(stdout).toContain(`.ci/install [] ${servers.join(' ')}\n`);
      for (const major of servers) {
        const command = `bin/npm [${binOf(major)}owner] test -- test/catalog test/schema/access test/schema/domains test/schema/dump\n`;
        const notRun = `Not run: the tests on PostgreSQL ${major}, which is not installed. The workflow runs them.\n`;
        expect(stdout.includes(command), command).toBe(installed.includes(major));
        expect(stdout.includes(notRun), notRun).toBe(!installed.includes(major));
      }
    },
  );

  test('runs the fast lane as a superuser, and the slow lane as an ordinary owner', async () => {
    const { stdout } = await run();
    expect(stdout).toContain('bin/npm [] test\n');
    expect(stdout).toContain('bin/npm [owner] run test:slow\n');
  });

  test('stops at the first command that fails', async () => {
    writePrinter('bin/npm', '[ "$*" != "run db:check" ]');
    const failed = await run().then(
      () => expect.fail('it succeeded'),
      (error) => error,
    );
    expect(failed.stdout.trim().split('\n').at(-1)).toBe('bin/npm [] run db:check');
  });
});
