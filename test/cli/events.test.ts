import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { MIGRATION_LOCK_KEY } from '../../src/session/lock-holder.ts';
import { command } from '../support/command-line/answers.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { until } from '../support/until.ts';

const files = committedMigrations();

/** What stdout has, each line being one object. */
function linesOf({ stdout }: Pick<CliResult, 'stdout'>) {
  expect(stdout).toMatch(/\n$/);
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Readonly<Record<string, unknown>>);
}

/** The first column of the table in docs/operations.md. */
function eventTable(): string {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'operations.md'), 'utf8');
  const [, rows = ''] = /^\| type +\| has .*\n\|[-| ]+\n((?:\|.*\n)+)/m.exec(text) ?? [];
  return rows.replaceAll(/^(\|[^|]*\|).*$/gm, '$1');
}

/** Lines of events that come only if something takes a second are left out. */
const typesOf = (lines: ReturnType<typeof linesOf>) =>
  lines.map(({ type, name }) => (type === 'span' ? name : type)).filter((type) => type !== 'progress');

describe('migrate --events', () => {
  const database = databaseForFile('empty');

  test('prints each event as a line with its time, and last the document of --json; stderr has lines for people', async () => {
    const result = await command(['migrate', '--events'], database().url);
    const lines = linesOf(result);
    expect(result.exitCode, result.output).toBe(0);
    expect(typesOf(lines)).toEqual([
      'connect',
      'survey',
      'plan',
      'lock',
      'checks',
      ...files.flatMap(() => ['migration-start', 'migration-end', 'migration']),
      'verify',
      'run',
      'result',
    ]);
    const documented = eventTable();
    for (const { type } of lines) expect(documented).toContain(`\`${type}\``);
    expect(lines.at(-1)).toMatchObject({
      ok: true,
      command: 'migrate',
      report: { applied: files.map((filename) => ({ filename })), schema: { state: 'same' } },
    });
    const times = lines.map(({ atMs }) => Number(atMs));
    expect(times).toEqual([...times].sort((a, b) => a - b));
    expect(Number(lines.at(-2)?.startedAtMs)).toBeLessThanOrEqual((times[0] ?? 0) + 1);
    const { stderr } = result;
    for (const filename of files) expect(stderr).toContain(`OK  ${filename}  (`);
    expect(stderr).toMatch(/^Done: applied /m);
    expect(stderr).not.toContain('survey');
  });
});

test.each([
  [['migrate', '--events'], { DATABASE_URL: 'nonsense' }, 'SETTINGS_INVALID'],
  [['migrate', '--events'], { NODE_ENV: 'production' }, 'SETTINGS_INVALID'],
  [['migrate', '--events', '--force'], {}, 'WRONG_USAGE'],
  [['status', '--events'], {}, 'WRONG_USAGE'],
])(
  'migrate --events that cannot begin, as in %j with %j, ends with the code too',
  async (args, env, code) => {
    const result = await runCli(args, { env });
    expect(result.exitCode).toBe(2);
    expect(linesOf(result).at(-1)).toMatchObject({ type: 'result', ok: false, error: { code } });
  },
);

describe('migrate --events of a database', () => {
  const database = databaseForEachTest();
  const migrate = (...args: readonly string[]) => command(['migrate', '--events', ...args], database().url);

  test('prints an event when it happens', async () => {
    await forgetLast(database());
    const holder = await database().connect();
    await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const child = startCli(['migrate', '--events'], { env: { DATABASE_URL: database().url } });
    let stdout = '';
    child.stdout?.on('data', (chunk) => {
      stdout += chunk;
    });
    const ended = collect(child);
    await until(async () => stdout.includes('"waiting"'));
    expect(linesOf({ stdout }).at(-1)).toMatchObject({
      type: 'waiting',
      for: 'lock',
      holder: { kind: 'session', connectedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/) },
    });
    await holder.query(`select pg_advisory_unlock(${MIGRATION_LOCK_KEY})`);
    expect(await ended).toMatchObject({ exitCode: 0 });
  });

  test('with --dry-run prints the document alone', async () => {
    await forgetLast(database());
    const result = await migrate('--dry-run');
    expect(result.exitCode, result.output).toBe(0);
    expect(linesOf(result)).toMatchObject([{ type: 'result', dryRun: true, pending: expect.any(Array) }]);
  });

  test('of a run that fails ends with the code of the error, in the span of the run and in the document', async () => {
    await forgetLast(database());
    const holder = await database().connect();
    await holder.query(`select pg_advisory_lock(${MIGRATION_LOCK_KEY})`);
    const result = await migrate();
    expect(result.exitCode).toBe(5);
    expect(linesOf(result).slice(-2)).toMatchObject([
      { type: 'span', name: 'run', error: { code: 'LOCK_NOT_ACQUIRED', sqlState: null } },
      {
        type: 'result',
        ok: false,
        command: 'migrate',
        error: { code: 'LOCK_NOT_ACQUIRED', holder: { kind: 'session' } },
      },
    ]);
    expect(result.stderr).toMatch(/^LOCK_NOT_ACQUIRED: /m);
  });

  test.each([[[]], [['--json']]])(
    'with nothing pending and %j prints what was looked at, and the document',
    async (more) => {
      const result = await migrate(...more);
      expect(result.exitCode, result.output).toBe(0);
      const lines = linesOf(result);
      expect(typesOf(lines)).toEqual(['connect', 'survey', 'plan', 'run', 'result']);
      expect(lines.at(-1)).toMatchObject({ type: 'result', ok: true });
    },
  );
});
