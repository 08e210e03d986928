import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { ERASE_LINE, pretendTerminal, screenOf } from '../support/command-line/terminal.ts';
import {
  BUILD_INDEX,
  createItems,
  startReport,
  untilBlocked,
} from '../support/databases/concurrent-index.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
let copy: PackageCopy;
let filename: string;

beforeEach(async () => {
  copy = copyPackage();
  filename = copy.addMigration('items', BUILD_INDEX);
  await createItems(database());
});
afterEach(() => copy.remove());

const ESCAPE = '\u001b';

const environment = (env: Readonly<Record<string, string>> = {}) => ({
  DATABASE_URL: database().url,
  ...env,
});

/** Migrates while a transaction blocks it, until stderr has matched the pattern so many times. */
async function migrateHeldUp(
  times: number,
  env: Readonly<Record<string, string>> = {},
  ...args: readonly string[]
): Promise<CliResult> {
  const report = await startReport(database());
  const child = startCli(['migrate', ...args], { folder: copy.folder, env: environment(env) });
  let stderr = '';
  child.stderr?.on('data', (chunk) => {
    stderr += chunk;
  });
  const ended = collect(child);
  try {
    await until(() => stderr.split('running for').length > times);
  } finally {
    await report.query('commit');
  }
  return ended;
}

describe('on a terminal', () => {
  test('progress is one line that is overwritten, and removed at the end', async () => {
    const { exitCode, stdout, stderr } = await migrateHeldUp(3, pretendTerminal(72));
    expect(exitCode).toBe(0);
    // Erased lines. Lines that stay end with a line break.
    const states = stderr.split(ERASE_LINE).filter((state) => !state.includes('\n'));
    expect(states.filter((state) => state.includes('running for')).length).toBeGreaterThanOrEqual(3);
    expect(states.join()).toMatch(/waits for server process \d/);
    // A longer line would wrap, and only its last row would be erased.
    expect(Math.max(...states.map(({ length }) => length))).toBe(71);
    expect(screenOf(stderr).join('\n')).not.toContain('running for');
    expect(screenOf(stderr).at(-1)).toBe('');
    expect(stdout).not.toContain(ESCAPE);
    expect(stdout).toMatch(new RegExp(`OK {2}${filename} {2}\\(\\d+ ms\\)\\nDone: applied 1 migration`));
  });

  test('of unknown width, a line has at most the usual width', async () => {
    const { stderr } = await migrateHeldUp(1, pretendTerminal(0));
    const states = stderr.split(ERASE_LINE).filter((state) => !state.includes('\n'));
    expect(Math.max(...states.map(({ length }) => length))).toBe(79);
  });

  test('that cannot erase lines, they are plain', async () => {
    const { stderr } = await migrateHeldUp(1, { ...pretendTerminal(72), TERM: 'dumb' });
    expect(stderr).not.toContain(ESCAPE);
    expect(stderr).toMatch(/running for .*\n/);
  });
});

test('without a terminal, progress is a plain line from time to time', async () => {
  const report = await startReport(database());
  const child = startCli(['migrate'], { folder: copy.folder, env: environment() });
  const ended = collect(child);
  await untilBlocked(database(), 'create index concurrently');
  // Progress is read about once a second, and printed at most every ten seconds.
  const startedAt = performance.now();
  await until(() => performance.now() - startedAt > 4_000);
  await report.query('commit');
  const { exitCode, stdout, stderr } = await ended;
  expect(exitCode).toBe(0);
  expect(stdout + stderr).not.toContain(ESCAPE);
  expect(stdout + stderr).not.toContain('\r');
  expect(stderr.split('\n').filter((line) => line.includes('running for'))).toEqual([
    expect.stringMatching(
      new RegExp(
        `^${filename}: running for .* s, waits for server process \\d+, .*"nightly report", waiting for writers before build 0 %$`,
      ),
    ),
  ]);
  expect(stdout).toMatch(new RegExp(`OK {2}${filename}`));
});

describe('with --json', () => {
  /** The document on stdout. */
  const documentOf = ({ stdout }: CliResult) => JSON.parse(stdout);
  const cli = (...args: readonly string[]) => runCli(args, { folder: copy.folder, env: environment() });

  test('stdout has the report, and stderr the rest, plain even on a terminal', async () => {
    const result = await migrateHeldUp(1, pretendTerminal(72), '--json');
    expect(documentOf(result)).toMatchObject({
      ok: true,
      command: 'migrate',
      report: { applied: [{ filename }], alreadyApplied: committedMigrations().length, attempts: 1 },
    });
    expect(result.stderr).toMatch(/1 migration to apply\n/);
    expect(result.stderr).toMatch(/running for .*"nightly report", waiting for .*\n/);
    expect(result.stderr).toMatch(`OK  ${filename}`);
    expect(result.output).not.toContain(ESCAPE);
  });

  test('stdout has the error of a failed run, with the applied migrations', async () => {
    const broken = copy.addMigration('broken', 'select nothing;');
    const result = await cli('migrate', '--json');
    expect(result.exitCode).toBe(1);
    expect(documentOf(result)).toMatchObject({
      ok: false,
      command: 'migrate',
      error: {
        code: 'MIGRATION_FAILED',
        sqlState: '42703',
        applied: [filename],
        place: { filename: broken },
      },
    });
    expect(result.stderr).toContain('MIGRATION_FAILED: ');
  });
});
