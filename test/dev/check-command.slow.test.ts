import { describe, expect, test } from 'vitest';
import type { CheckReport } from '../../dev/check/check-migrations.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { packageToSpoil } from '../support/packages/spoiled-package.ts';

const spoil = packageToSpoil();

describe('check', () => {
  test('passes on the checkout, in one document with --json', async () => {
    const { exitCode, stdout, stderr } = await runCli(['check', '--json']);
    const report: CheckReport & { readonly command: string } = JSON.parse(stdout);
    expect(report.gates.filter(({ state }) => state === 'failed')).toEqual([]);
    expect(report).toMatchObject({ command: 'check', ok: true, locks: null });
    expect(exitCode).toBe(0);
    // Which gates were not run depends on the machine and on releases. All others passed.
    const skipped = report.gates.filter(({ state }) => state === 'not run').map(({ name }) => name);
    expect(['released']).toEqual(expect.arrayContaining(skipped));
    const last = stderr.trimEnd().split('\n').at(-1);
    expect(last).toContain(skipped.length === 0 ? ' 0 failed (' : ` NOT RUN: ${skipped.join(', ')} (`);
    expect(new Set(report.gates.map(({ name }) => name)).size).toBe(report.gates.length);
    expect(stderr.match(/^OK {2}/gm)).toHaveLength(report.gates.length - skipped.length);
    for (const name of skipped) expect(stderr).toMatch(new RegExp(`^NOT RUN {2}${name}: .+`, 'm'));
  });

  test('checks current.sql as the next migration with --current, and prints problems and locks', async () => {
    const copy = spoil({ whole: true });
    copy.write(
      'migrations/current.sql',
      'alter table filestore.nodes add column if not exists owner_hint text;\n',
    );
    const { exitCode, stdout } = await runCli(['check', '--current'], { folder: copy.folder });
    expect(exitCode).toBe(1);
    expect(stdout).toMatch(
      /^FAILED {2}comments: .*\n {2}migrations\/current\.sql:1 {2}column filestore\.nodes\.owner_hint has no comment\n/m,
    );
    expect(stdout).toMatch(
      /^FAILED {2}history columns: .*\n {2}migrations\/current\.sql:1 {2}filestore\.snapshots has no column where nodes has owner_hint text/m,
    );
    // The views have all columns of nodes, and were not included again.
    expect(stdout).toMatch(
      /^FAILED {2}definitions: [\s\S]* column filestore\.view_filestore_active_nodes\.owner_hint is in the file/m,
    );
    // So every update of a node fails.
    expect(stdout).toMatch(/^FAILED {2}sample calls: /m);
    expect(stdout.match(/^FAILED/gm)).toHaveLength(5);
    expect(stdout).toMatch(
      /^LOCKS .*\n {2}migrations\/current\.sql:1 {2}filestore\.nodes: AccessExclusiveLock blocks reads and writes\n/m,
    );
  });

  test('runs the remaining gates when the committed migrations do not apply', async () => {
    const copy = spoil({ whole: true });
    const file = copy.addMigration('broken', 'select 1;\nselect nothing;');
    const { exitCode, stdout } = await runCli(['check', '--current', '--json'], { folder: copy.folder });
    expect(exitCode).toBe(1);
    const { ok, gates, locks }: CheckReport = JSON.parse(stdout);
    expect(ok).toBe(false);
    const reason = 'the committed migrations do not apply';
    expect(gates).toContainEqual(
      expect.objectContaining({
        name: 'applies',
        problems: [expect.objectContaining({ file: `migrations/committed/${file}`, line: 5 })],
      }),
    );
    expect(gates).toContainEqual(expect.objectContaining({ name: 'chain', state: 'passed' }));
    expect(gates).toContainEqual(expect.objectContaining({ name: 'comments', state: 'not run', reason }));
    expect(locks).toEqual({ state: 'not measured', reason });
  });

  test('refuses unknown options', async () => {
    expect(await runCli(['check', '--dry-run'])).toMatchObject({ exitCode: 2 });
  });
});
