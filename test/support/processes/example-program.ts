import { execFile } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach } from 'vitest';
import { packageFolder, startOf } from '../../../harness/compiled.ts';

/** Runs the example, which makes the catalogue follow a folder. */
export const followFolder = async (url: string, ...args: readonly string[]) =>
  (await promisify(execFile)(process.execPath, followerOf(...args), followerSettings(url))).stdout;

/** Arguments for Node.js that start the example. */
export const followerOf = (...args: readonly string[]): readonly string[] => [
  ...startOf(packageFolder(), 'examples', 'catalogue-a-tree'),
  ...args,
];

export const followerSettings = (url: string) => ({
  cwd: packageFolder(),
  env: { PATH: process.env.PATH, DATABASE_URL: url },
});

/** The lines of the example's output from a heading to the next one; undefined without that heading. */
export const section = (output: string, heading: string): readonly string[] | undefined =>
  new RegExp(`^${heading}:.*(?:\n {2}.*)*`, 'm').exec(output)?.[0].split('\n');

/** An empty folder for each test. Call the returned function inside the test. */
export function folderForEachTest(): () => string {
  let folder = '';
  beforeEach(() => {
    folder = realpathSync(mkdtempSync(join(tmpdir(), 'a tree ')));
  });
  afterEach(() => rmSync(folder, { recursive: true, force: true }));
  return () => folder;
}

/** Writes 307 files with their paths as content, a symbolic link and 9 directories. */
export function fillFolder(folder: string): void {
  const write = (path: string) => writeFileSync(join(folder, path), path);
  for (const directory of ['photos/2025', 'photos/2026/raw', 'notes/drafts', 'archive/old', 'empty']) {
    mkdirSync(join(folder, directory), { recursive: true });
  }
  for (let index = 0; index < 100; index += 1) {
    write(`photos/2026/${index}.jpg`);
    write(`photos/2026/raw/${index}.raw`);
    write(`notes/drafts/${index}.md`);
  }
  const names = ['plain', 'with space', 'back\\slash', '"quoted"', "it's 100%_", '🗂️', 'x'.repeat(255)];
  for (const name of names) write(`photos/2025/${name}`);
  symlinkSync('/', join(folder, 'link'));
  // A last change in the same tick of the clock as the birth looks like a file system without birth times.
  for (let left = 10_000; left > 0 && isNewborn(folder); left -= 1)
    utimesSync(folder, new Date(), new Date());
}

function isNewborn(folder: string): boolean {
  const { birthtimeNs, ctimeNs } = statSync(folder, { bigint: true });
  return birthtimeNs === ctimeNs;
}
