import { execFile, execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type Entry, walk } from '../examples/walk.ts';
import { packageFolder, startOf } from '../harness/compiled.ts';
import { startProxy } from '../harness/proxy.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { one } from './support/rows/nodes.ts';
import { until } from './support/until.ts';

const database = databaseForEachTest();
let tree: string;

beforeEach(() => {
  tree = realpathSync(mkdtempSync(join(tmpdir(), 'a tree ')));
});
afterEach(() => rmSync(tree, { recursive: true, force: true }));

const programOf = (...args: readonly string[]) =>
  [...startOf(packageFolder(), 'examples', 'catalogue-a-tree'), ...args] as const;
const settings = (url = database().url) => ({
  cwd: packageFolder(),
  env: { PATH: process.env.PATH, DATABASE_URL: url },
});
const scan = async (...args: readonly string[]) =>
  (await promisify(execFile)(process.execPath, programOf(...args), settings())).stdout;

const write = (path: string, text = path) => writeFileSync(join(tree, path), text);

/** Some hundred files in a few directories. */
function fillTree(): void {
  for (const directory of ['photos/2025', 'photos/2026/raw', 'notes/drafts', 'archive/old', 'empty']) {
    mkdirSync(join(tree, directory), { recursive: true });
  }
  for (let index = 0; index < 100; index += 1) {
    write(`photos/2026/${index}.jpg`);
    write(`photos/2026/raw/${index}.raw`);
    write(`notes/drafts/${index}.md`);
  }
  const names = ['plain', 'with space', 'back\\slash', '"quoted"', "it's 100%_", '🗂️', 'x'.repeat(255)];
  for (const name of names) write(`photos/2025/${name}`);
  symlinkSync('/', join(tree, 'link'));
}

const readNodes = () =>
  database().query<{ id: string; path: string; state: string; version: number }>(
    "select id, path, state, version from filestore.nodes where path <> '' order by path",
  );

/** The part of the output from one heading to the next. */
const section = (output: string, heading: string) =>
  new RegExp(`^${heading}:.*(?:\n {2}.*)*`, 'm').exec(output)?.[0].split('\n');

test('a second scan reports what was renamed, moved, saved and deleted, and every id stays', async () => {
  fillTree();
  const first = await scan(tree);
  expect(first).toContain('Listed 317 entries in ');
  expect(section(first, 'New')).toHaveLength(1 + 20 + 1);
  expect(first).toMatch(/^ {2}… and 297 more$/m);
  expect(first).toContain('Applied 317 changes, saw 317 nodes.');
  const before = await readNodes();
  expect(before).toHaveLength(317);
  expect(
    await one(database(), "select kind, size_bytes, link_target from filestore.nodes where path = 'link'"),
  ).toEqual({ kind: 'file', size_bytes: '0', link_target: '/' });

  renameSync(join(tree, 'photos/2026'), join(tree, 'photos/summer'));
  renameSync(join(tree, 'notes/drafts'), join(tree, 'archive/old/drafts'));
  write('photos/2025/.plain.saving', 'saved');
  renameSync(join(tree, 'photos/2025/.plain.saving'), join(tree, 'photos/2025/plain'));
  for (const name of ['1.jpg', 'raw/2.raw']) unlinkSync(join(tree, 'photos/summer', name));
  write('archive/new');
  const second = await scan(tree);

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
  expect(section(await scan(tree), 'Found again')).toEqual(['Found again: 1', '  photos/summer/1.jpg']);
});

test('a scan of a folder that did not change writes nothing', async () => {
  fillTree();
  await scan(tree);
  const snapshot = () => database().query('select id, version, xmin::text from filestore.nodes order by id');
  const before = await snapshot();
  const output = await scan(tree);
  expect(output).toContain('Nothing has changed.\nApplied 0 changes, saw 317 nodes.');
  expect(await snapshot()).toEqual(before);
});

test('a folder that was empty at the first scan is followed too', async () => {
  await scan(tree);
  fillTree();
  await scan(tree);
  renameSync(join(tree, 'photos'), join(tree, 'pictures'));
  expect(section(await scan(tree), 'Moved')).toEqual(['Moved: 1', '  photos/ → pictures/ (207 files)']);
});

test('a folder in a scanned one is a part of its mount', async () => {
  fillTree();
  await scan(tree);
  write('photos/2025/new');
  write('not scanned');
  const output = await scan(join(tree, 'photos'));
  expect(section(output, 'New')).toEqual(['New: 1', '  photos/2025/new']);
  expect(section(output, 'Largest directories')?.[1]).toMatch(/ photos\/ \(208 files\)$/);
  expect(await one(database(), 'select count(*) from filestore.backend_mounts')).toEqual({ count: '1' });
});

test('special files and names that nodes cannot have are counted and listed', async () => {
  mkdirSync(join(tree, 'folder'));
  write('folder/tab\there', 'text');
  execFileSync('mkfifo', [join(tree, 'folder/pipe')]);
  // macOS takes only names that are UTF-8.
  const takesBytes = process.platform === 'linux';
  if (takesBytes) writeFileSync(Buffer.concat([Buffer.from(`${tree}/latin-`), Buffer.from([0xe9])]), 'text');
  const output = await scan(tree);
  expect(section(output, 'Left out, special files, such as sockets and devices')).toEqual([
    expect.stringMatching(/: 1$/),
    '  folder/pipe',
  ]);
  expect(section(output, 'Left out, names that nodes cannot have')?.[1]).toBe('  folder/tab\\x09here');
  if (takesBytes) expect(output).toContain('Left out, names that are not UTF-8: 1\n  latin-\ufffd\n');
  expect((await readNodes()).map(({ path }) => path)).toEqual(['folder']);
});

test('a folder that cannot be read cancels the scan, and is named', async () => {
  fillTree();
  await scan(tree);
  renameSync(join(tree, 'photos/2025'), join(tree, 'photos/renamed'));
  const before = await readNodes();
  chmodSync(join(tree, 'photos/2026'), 0);
  // Root reads all folders, and opens all sockets, unless it gives these rights up.
  const isRoot = process.getuid?.() === 0;
  const asUser = isRoot ? ['setpriv', '--bounding-set', '-dac_override,-dac_read_search'] : [];
  const [file = '', ...args] = [...asUser, process.execPath, ...programOf(tree)];
  const proxy = await startProxy(database().url);
  try {
    await expect(promisify(execFile)(file, args, settings(proxy.url))).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(
        /^1 folder or file cannot be read\. The scan was canceled, and nothing was changed: .*\n {2}EACCES: .*photos\/2026'\n$/,
      ),
    });
  } finally {
    await proxy.stop();
  }
  chmodSync(join(tree, 'photos/2026'), 0o755);
  expect(await readNodes()).toEqual(before);
  expect(section(await scan(tree), 'Moved')).toEqual([
    'Moved: 1',
    '  photos/2025/ → photos/renamed/ (7 files)',
  ]);
});

test('a folder that lost most of its files is refused until the user confirms', async () => {
  fillTree();
  await scan(tree);
  const before = await readNodes();
  rmSync(join(tree, 'photos'), { recursive: true });
  await expect(scan(tree)).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringContaining('run the command again with --confirm-missing.'),
  });
  expect(await readNodes()).toEqual(before);
  expect(await scan(tree, '--confirm-missing')).toMatch(/^Missing: 211$/m);
});

test.each(['record_entries', 'apply_scan'])(
  'Ctrl-C during %s cancels the scan, and the next one starts at once',
  async (during) => {
    fillTree();
    const proxy = await startProxy(database().url);
    try {
      const held = proxy.holdAt(during);
      const child = spawn(process.execPath, programOf(tree), settings(proxy.url));
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
    expect(await scan(tree)).toContain('Applied 317 changes');
  },
);

test('a missing folder is an error in one line', async () => {
  await expect(scan(join(tree, 'missing'))).rejects.toMatchObject({
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
