import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, renameSync, unlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type Entry, walk } from '../examples/walk.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import {
  fillFolder,
  folderForEachTest,
  followerOf,
  followerSettings,
  followFolder,
  section,
} from './support/processes/example-program.ts';
import { one } from './support/rows/nodes.ts';

const database = databaseForEachTest();
const tree = folderForEachTest();

const scan = (...args: readonly string[]) => followFolder(database().url, ...args);
const write = (path: string, text = path) => writeFileSync(join(tree(), path), text);

const readNodes = () =>
  database().query<{ id: string; path: string; state: string; version: number }>(
    "select id, path, state, version from filestore.nodes where path <> '' order by path",
  );

test('a second scan reports what was renamed, moved, saved and deleted, and every id stays', async () => {
  fillFolder(tree());
  const first = await scan(tree());
  expect(first).toContain('Listed 317 entries in ');
  expect(section(first, 'New')).toHaveLength(1 + 20 + 1);
  expect(first).toMatch(/^ {2}… and 297 more$/m);
  expect(first).toContain('Applied 317 changes, saw 317 nodes.');
  const before = await readNodes();
  expect(before).toHaveLength(317);
  expect(
    await one(database(), "select kind, size_bytes, link_target from filestore.nodes where path = 'link'"),
  ).toEqual({ kind: 'file', size_bytes: '0', link_target: '/' });

  renameSync(join(tree(), 'photos/2026'), join(tree(), 'photos/summer'));
  renameSync(join(tree(), 'notes/drafts'), join(tree(), 'archive/old/drafts'));
  write('photos/2025/.plain.saving', 'saved');
  renameSync(join(tree(), 'photos/2025/.plain.saving'), join(tree(), 'photos/2025/plain'));
  for (const name of ['1.jpg', 'raw/2.raw']) unlinkSync(join(tree(), 'photos/summer', name));
  write('archive/new');
  const second = await scan(tree());

  expect(section(second, 'Moved')).toEqual([
    'Moved: 2',
    '  photos/2026/ → photos/summer/ (200 files)',
    '  notes/drafts/ → archive/old/drafts/ (100 files)',
  ]);
  expect(section(second, 'New')).toEqual(['New: 1', '  archive/new']);
  expect(section(second, 'Changed')).toEqual(['Changed: 1', '  photos/2025/plain']);
  expect(section(second, 'Missing')).toEqual([
    'Missing: 2',
    '  photos/2026/1.jpg',
    '  photos/2026/raw/2.raw',
  ]);
  expect(second).toContain('Applied 6 changes, saw 316 nodes.');
  expect(section(second, 'Largest directories')).toContainEqual(
    expect.stringMatching(/^ +3\.9 KiB {2}photos\/summer\/ \(200 files\)$/),
  );
  expect(second).toContain('They include 2 missing files (');

  const moved = (path: string) =>
    path
      .replace(/^photos\/2026(?=\/|$)/, 'photos/summer')
      .replace(/^notes\/drafts(?=\/|$)/, 'archive/old/drafts');
  const after = new Map((await readNodes()).map((node) => [node.path, node]));
  expect(after.size).toBe(before.length + 1);
  for (const { id, path } of before) expect(after.get(moved(path))?.id, path).toBe(id);
  expect([...after.values()].flatMap(({ path, state }) => (state === 'missing' ? [path] : []))).toEqual([
    'photos/summer/1.jpg',
    'photos/summer/raw/2.raw',
  ]);

  write('photos/summer/1.jpg');
  expect(section(await scan(tree()), 'Found again')).toEqual(['Found again: 1', '  photos/summer/1.jpg']);
});

test('a reader that leaves early, such as head, does not stop a scan', async () => {
  fillFolder(tree());
  const program = spawn(process.execPath, followerOf(tree()), {
    ...followerSettings(database().url),
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  program.stdout.destroy();
  expect(await once(program, 'exit')).toEqual([0, null]);
  expect(await database().query('select state from filestore.scans')).toEqual([{ state: 'finished' }]);
});

test('a missing folder is an error in one line', async () => {
  await expect(scan(join(tree(), 'missing'))).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^ENOENT.*missing'\n$/),
  });
});

test.runIf(process.platform === 'linux')('a walk lists the same objects as find -xdev', async () => {
  const leftOut: string[] = [];
  const entries: Entry[] = [];
  for await (const batch of walk({
    root: '/dev',
    withBirthTimes: true,
    signal: new AbortController().signal,
    onLeftOut: (reason, path) => reason === 'device' && leftOut.push(path),
    onUnreadable: (error) => expect.fail(error.message),
  })) {
    entries.push(...batch);
  }
  const find = execFileSync('find', [
    '/dev',
    '-xdev',
    '-mindepth',
    '1',
    '-type',
    'f,d,l',
    '-printf',
    '%P\\n',
  ]);
  expect(entries.map(({ path }) => path).sort()).toEqual(find.toString().trim().split('\n').sort());
  // It is a mount of its kind everywhere.
  expect(leftOut).toContain('pts');
  expect(entries.find(({ path }) => path === 'pts')).toEqual({ path: 'pts', kind: 'directory' });
});

test('docs/service.md shows the identity that the example uses', () => {
  const read = (...path: readonly string[]) => readFileSync(join(PACKAGE_ROOT, ...path), 'utf8');
  const blocks = read('docs', 'service.md')
    .split('```ts\n')
    .map((text) => text.split('```')[0]);
  expect(blocks.find((block) => block?.includes('backendIdentity'))).toBe(read('examples', 'identity.ts'));
});
