import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

/** Runs the command on the server of this run, and returns what it prints. */
const mutate = (...options: readonly string[]) =>
  execFileSync(
    process.execPath,
    ['--import', 'tsx', 'test/mutants/main.ts', '--tests', 'test/schema/node-tree.test.ts', ...options],
    {
      cwd: PACKAGE_ROOT,
      encoding: 'utf8',
      env: { ...process.env, TEST_DATABASE_URL: inject('superuserUrl'), TEST_POSTGRES: undefined },
    },
  );

test('a change of the schema is caught by a test that touches it, and tested once', () => {
  const results = mkdtempSync(join(tmpdir(), 'filestore-mutants-test-'));
  try {
    const triggers = 'nodes_prepare_update,journal_entries_guard_removal';
    const options = ['--only', triggers, '--kind', 'dropped', '--results', results];
    const first = mutate(...options);
    // No test of this file removes an entry of the journal.
    expect(first).toMatch(/survived journal_entries_guard_removal\/trigger-dropped/);
    expect(first).toMatch(/^2 mutants: +50.0 % caught or explained: 1 caught, 0 explained, 1 survived/m);
    expect(mutate(...options)).toContain('2 mutants, 0 of them to test');
  } finally {
    rmSync(results, { recursive: true, force: true });
  }
}, 300_000);
