import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findFrom } from './versions.ts';

let root: string;
let folder: string;
const { signal } = new AbortController();

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'filestore-releases-'));
  folder = mkdtempSync(join(tmpdir(), 'filestore-from-'));
  mkdirSync(join(root, 'migrations'));
  git('init', '--quiet');
  commit('before', []);
});
afterEach(() => {
  for (const made of [root, folder]) rmSync(made, { recursive: true, force: true });
});

function git(...args: readonly string[]): void {
  const person = ['-c', 'user.name=Test', '-c', 'user.email=test@example.com', '-c', 'commit.gpgsign=false'];
  execFileSync('git', [...person, ...args], {
    cwd: root,
    env: { ...process.env, GIT_CONFIG_GLOBAL: '/dev/null' },
  });
}

/** Commits a file with a text, and a record of releases. */
function commit(text: string, versions: readonly string[]): void {
  writeFileSync(join(root, 'text'), text);
  const releases = versions.map((version) => ({ version, date: '2026-12-01', migrations: {} }));
  writeFileSync(join(root, 'migrations', 'releases.json'), JSON.stringify(releases, null, 2));
  git('add', '--all');
  git('commit', '--quiet', '--message', text);
}

const textOf = async (from: Parameters<typeof findFrom>[0]) => {
  const version = await findFrom(from, folder, signal, root);
  return [version.name, readFileSync(join(version.folder, 'text'), 'utf8')];
};

test('the last release is upgraded, from the commit that recorded it', async () => {
  commit('1.0.0', ['1.0.0']);
  commit('later', ['1.0.0']);
  expect(await textOf({})).toEqual(['1.0.0', '1.0.0']);
});

test('an earlier release is upgraded by its version, also without a tag', async () => {
  commit('1.0.0', ['1.0.0']);
  commit('1.1.0', ['1.0.0', '1.1.0']);
  commit('later', ['1.0.0', '1.1.0']);
  expect(await textOf({ from: '1.0.0' })).toEqual(['1.0.0', '1.0.0']);
});

test('the tag of a release comes before the commit that recorded it', async () => {
  commit('1.0.0', ['1.0.0']);
  commit('tagged', ['1.0.0']);
  git('tag', 'v1.0.0');
  expect(await textOf({})).toEqual(['1.0.0', 'tagged']);
});

test('before the first release, the last commit is upgraded, without what is not committed', async () => {
  writeFileSync(join(root, 'text'), 'not committed');
  expect(await textOf({})).toEqual([expect.stringMatching(/^commit [0-9a-f]{7,}$/), 'before']);
});

test('a version that was not released is refused, with the released ones', async () => {
  commit('1.0.0', ['1.0.0']);
  await expect(textOf({ from: '2.0.0' })).rejects.toThrow(
    'Version 2.0.0 is not in migrations/releases.json (1.0.0). Give a released version, or --from-folder.',
  );
});

test('a release whose commit is missing says how to get it', async () => {
  writeFileSync(
    join(root, 'migrations', 'releases.json'),
    '[{ "version": "1.0.0", "date": "2026-12-01", "migrations": {} }]',
  );
  await expect(textOf({})).rejects.toThrow('neither the tag v1.0.0 nor the commit that recorded it');
});
