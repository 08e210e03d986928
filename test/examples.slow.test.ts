import { execFile, execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { startProxy } from '../harness/proxy.ts';
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
import { until } from './support/until.ts';

const database = databaseForEachTest();
const tree = folderForEachTest();

const scan = (...args: readonly string[]) => followFolder(database().url, ...args);
const write = (path: string, text = path) => writeFileSync(join(tree(), path), text);

const readNodes = () =>
  database().query<{ id: string; path: string; state: string; version: number }>(
    "select id, path, state, version from filestore.nodes where path <> '' order by path",
  );

test('a scan of a folder that did not change writes nothing', async () => {
  fillFolder(tree());
  await scan(tree());
  const snapshot = () => database().query('select id, version, xmin::text from filestore.nodes order by id');
  const before = await snapshot();
  const output = await scan(tree());
  expect(output).toContain('Nothing has changed.\nApplied 0 changes, saw 317 nodes.');
  expect(await snapshot()).toEqual(before);
});

test('a folder that was empty at the first scan is followed too', async () => {
  await scan(tree());
  fillFolder(tree());
  await scan(tree());
  // It changes the directory's moment, so that only its birth identifies it.
  write('photos/new');
  renameSync(join(tree(), 'photos'), join(tree(), 'pictures'));
  expect(section(await scan(tree()), 'Moved')).toEqual(['Moved: 1', '  photos/ → pictures/ (207 files)']);
});

test('a folder in a scanned one is a part of its mount', async () => {
  fillFolder(tree());
  await scan(tree());
  write('photos/2025/new');
  write('not scanned');
  const output = await scan(join(tree(), 'photos'));
  expect(section(output, 'New')).toEqual(['New: 1', '  photos/2025/new']);
  expect(section(output, 'Largest directories')?.[1]).toMatch(/ photos\/ \(208 files\)$/);
  expect(await one(database(), 'select count(*) from filestore.backend_mounts')).toEqual({ count: '1' });
});

test('a folder that contains a mount is refused, and a file too', async () => {
  fillFolder(tree());
  await scan(join(tree(), 'photos'));
  await expect(scan(tree())).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(
      / contains folders that are mounts of the catalogue\. .*\n {2}.*\/photos\n$/,
    ),
  });
  await expect(scan(join(tree(), 'photos/2025/plain'))).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/plain is not a folder\./),
  });
  expect(await one(database(), 'select count(*) from filestore.backend_mounts')).toEqual({ count: '1' });
});

test('special files and names that nodes cannot have are counted and listed', async () => {
  mkdirSync(join(tree(), 'folder'));
  write('folder/tab\there', 'text');
  execFileSync('mkfifo', [join(tree(), 'folder/pipe')]);
  // macOS takes only names that are UTF-8.
  const takesBytes = process.platform === 'linux';
  if (takesBytes)
    writeFileSync(Buffer.concat([Buffer.from(`${tree()}/latin-`), Buffer.from([0xe9])]), 'text');
  const output = await scan(tree());
  expect(section(output, 'Left out, special files, such as sockets and devices')).toEqual([
    expect.stringMatching(/: 1$/),
    '  folder/pipe',
  ]);
  expect(section(output, 'Left out, names that nodes cannot have')?.[1]).toBe('  folder/tab\\x09here');
  if (takesBytes) expect(output).toContain('Left out, names that are not UTF-8: 1\n  latin-\ufffd\n');
  expect((await readNodes()).map(({ path }) => path)).toEqual(['folder']);
});

test('a folder that cannot be read cancels the scan, and is named', async () => {
  fillFolder(tree());
  await scan(tree());
  renameSync(join(tree(), 'photos/2025'), join(tree(), 'photos/renamed'));
  const before = await readNodes();
  chmodSync(join(tree(), 'photos/2026'), 0);
  // Root reads all folders, and opens all sockets, unless it gives these rights up.
  const isRoot = process.getuid?.() === 0;
  const asUser = isRoot ? ['setpriv', '--bounding-set', '-dac_override,-dac_read_search'] : [];
  const [file = '', ...args] = [...asUser, process.execPath, ...followerOf(tree())];
  const proxy = await startProxy(database().url);
  try {
    await expect(promisify(execFile)(file, args, followerSettings(proxy.url))).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /^1 folder or file cannot be read\. The scan was canceled, and nothing was changed: .*\n {2}EACCES: .*photos\/2026'\n$/,
      ),
    });
  } finally {
    await proxy.stop();
  }
  chmodSync(join(tree(), 'photos/2026'), 0o755);
  expect(await readNodes()).toEqual(before);
  expect(section(await scan(tree()), 'Moved')).toEqual([
    'Moved: 1',
    '  photos/2025/ → photos/renamed/ (7 files)',
  ]);
});

test('a folder that lost most of its files is refused until the user confirms', async () => {
  fillFolder(tree());
  await scan(tree());
  const before = await readNodes();
  rmSync(join(tree(), 'photos'), { recursive: true });
  await expect(scan(tree())).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('run the command again with --confirm-missing.'),
  });
  expect(await readNodes()).toEqual(before);
  expect(await scan(tree(), '--confirm-missing')).toMatch(/^Missing: 211$/m);
});

test.each(['record_entries', 'apply_scan'])(
  'Ctrl-C during %s cancels the scan, and the next one starts at once',
  async (during) => {
    fillFolder(tree());
    const proxy = await startProxy(database().url);
    try {
      const held = proxy.holdAt(during);
      const child = spawn(process.execPath, followerOf(tree()), followerSettings(proxy.url));
      let errors = '';
      child.stderr.on('data', (text) => {
        errors += text;
      });
      const code = new Promise((resolve) => child.once('exit', resolve));
      const release = await held;
      child.kill('SIGINT');
      await until(() => errors.includes('Canceling'));
      release();
      expect(await code).toBe(130);
      expect(errors).toBe(
        'Canceling …\nInterrupted: the scan was canceled. Run the command again to scan from the start.\n',
      );
    } finally {
      await proxy.stop();
    }
    expect(await one(database(), 'select state, seen from filestore.scans')).toEqual({
      state: 'canceled',
      seen: '0',
    });
    expect(await readNodes()).toEqual([]);
    expect(await scan(tree())).toContain('Applied 317 changes');
  },
);
