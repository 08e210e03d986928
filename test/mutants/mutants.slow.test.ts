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

test('a change of the schema is caught by a test that touches it, once', () => {
  const results = mkdtempSync(join(tmpdir(), 'filestore-mutants-test-'));
  try {
    const moves = ['--only', 'nodes_live_child_key,move_node', '--kind', 'refusal', '--results', results];
    expect(mutate(...moves)).toMatch(/^1 mutants: 100.0 % caught or explained: 1 caught/m);
    expect(mutate(...moves)).toContain('1 mutants, 0 of them to test');
    // No test of this file prunes.
    expect(mutate('--only', 'prune_journal', '--kind', 'refusal', '--results', results)).toMatch(
      /survived prune_journal\/refusal-left-out/,
    );
  } finally {
    rmSync(results, { recursive: true, force: true });
  }
}, 180_000);
