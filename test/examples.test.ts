import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { packageFolder, startOf } from '../harness/compiled.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { one } from './support/rows/nodes.ts';

const run = promisify(execFile);
const database = databaseForEachTest('empty');
let tree: string;

beforeEach(() => {
  tree = mkdtempSync(join(tmpdir(), 'a tree '));
});
afterEach(() => rmSync(tree, { recursive: true, force: true }));

const catalogue = async (folder: string) => {
  const { stdout } = await run(
    process.execPath,
    [...startOf(packageFolder(), 'examples', 'catalogue-a-tree'), folder],
    { cwd: packageFolder(), env: { PATH: process.env.PATH, DATABASE_URL: database().url } },
  );
  return stdout;
};

test('a tree is catalogued completely, and a second run changes nothing', async () => {
  mkdirSync(join(tree, 'a', 'b c', "d'e%_"), { recursive: true });
  mkdirSync(join(tree, 'empty'));
  const names = ['plain', 'with space', 'back\\slash', '"quoted"', 'tab\there', '🗂️', 'x'.repeat(255)];
  for (const name of names) writeFileSync(join(tree, 'a', 'b c', name), name);
  for (let index = 0; index < 200; index += 1) writeFileSync(join(tree, 'a', "b c/d'e%_", `f${index}`), 'x');
  symlinkSync('/', join(tree, 'a', 'link'));

  const first = await catalogue(tree);
  expect(first).toContain('Found 207 files in 4 directories.');
  expect(first).toContain('Left out: 1 × name or path that has no node.');
  expect(first).toMatch(
    /Catalogued 211 rows in .* rows\/s.*\nA copy of the files into a table without .*: \d+ rows\/s/,
  );
  expect(first.match(/^ {2}node \d+, \d+ bytes, file:\/\/\//gm)).toHaveLength(3);

  const snapshot = () =>
    database().query('select path, version, size_bytes, xmin::text from filestore.nodes order by path');
  const before = await snapshot();
  expect(before).toHaveLength(212);
  await catalogue(tree);
  expect(await snapshot()).toEqual(before);
  expect(
    await one(database(), "select kind, size_bytes, link_target from filestore.nodes where path = 'a/link'"),
  ).toEqual({ kind: 'file', size_bytes: '0', link_target: '/' });

  writeFileSync(join(tree, 'a', 'b c', 'plain'), 'longer than before');
  await catalogue(tree);
  expect(
    await one(database(), "select size_bytes, version from filestore.nodes where path = 'a/b c/plain'"),
  ).toEqual({ size_bytes: '18', version: 2 });
});

test('a missing folder is an error in one line', async () => {
  await expect(catalogue(join(tree, 'missing'))).rejects.toMatchObject({
    code: 1,
    stderr: expect.stringMatching(/^ENOENT.*missing'\n$/),
  });
});
