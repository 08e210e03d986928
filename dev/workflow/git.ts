import { execFile } from 'node:child_process';
import { resolve } from 'node:path';
import { promisify } from 'node:util';
import { codeOf, FilestoreError } from '../../src/errors.ts';
import { isMigrationFile } from '../../src/graphile/migration-text.ts';
import { TAGS } from '../check/gates/released.ts';
import { COMMITTED } from '../check/sources.ts';

const execute = promisify(execFile);

/** Git's view of the folder of a package, which may be a part of its repository. */
export interface Repository {
  /** The commit of a name; undefined if git does not know it. */
  commitOf(ref: string): Promise<string | undefined>;
  /** The output of a command; undefined if it fails or finds nothing. */
  tryGit(...args: readonly string[]): Promise<string | undefined>;
  /** The committed migrations of a commit: file name to the id of its content. */
  migrationsAt(commit: string): Promise<ReadonlyMap<string, string>>;
  /** The same ids for files of the folder. */
  idsOf(filenames: readonly string[]): Promise<ReadonlyMap<string, string>>;
  /** The oldest release that has one of the files with its current content. */
  releaseOf(filenames: readonly string[]): Promise<Release | undefined>;
  /** Path of a file in git's folder for this work tree. */
  privateFile(name: string): Promise<string>;
}

export interface Release {
  readonly filename: string;
  readonly tag: string;
}

/** @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is no git, or the folder is not in a repository. */
export async function openRepository(root: string): Promise<Repository> {
  const git = async (args: readonly string[], input = '') => {
    // Messages are shown to the user, so they should be in English.
    const env = { ...process.env, LC_ALL: 'C' };
    const running = execute('git', ['-C', root, ...args], { maxBuffer: 2 ** 28, env });
    // If git ends without reading its input, this process must continue.
    running.child.stdin?.on('error', () => undefined).end(input);
    return (await running).stdout;
  };
  const tryGit: Repository['tryGit'] = (...args) =>
    git(args).then(
      (output) => output.trim(),
      () => undefined,
    );
  const prefix = await git(['rev-parse', '--show-prefix']).catch((error) => {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `git cannot read this folder, so your migrations cannot be distinguished from others: ${reasonOf(error)}. Nothing was changed. Run this in a clone of the repository, with git installed.`,
    );
  });
  const pathOf = (filename: string) => `${prefix.trim()}${COMMITTED}/${filename}`;
  const idsOf: Repository['idsOf'] = async (filenames) => {
    if (filenames.length === 0) return new Map();
    const paths = filenames.map((filename) => `${COMMITTED}/${filename}`);
    const ids = (await git(['hash-object', '--', ...paths])).trim().split('\n');
    return new Map(filenames.map((filename, index) => [filename, ids[index] ?? '']));
  };
  return {
    tryGit,
    async commitOf(ref) {
      // Git would read such a name as an option.
      if (ref.startsWith('-')) return undefined;
      return tryGit('rev-parse', '--verify', '--quiet', `${ref}^{commit}`);
    },
    async migrationsAt(commit) {
      const entries = (await git(['ls-tree', '-z', commit, '--', `${COMMITTED}/`])).split('\0');
      const files = entries.flatMap((entry) => {
        const [, id, path] = /^\d+ blob (\S+)\t(.*)$/s.exec(entry) ?? [];
        const filename = path?.slice(COMMITTED.length + 1);
        return id !== undefined && filename !== undefined && isMigrationFile(filename)
          ? [[filename, id] as const]
          : [];
      });
      return new Map(files);
    },
    idsOf,
    async releaseOf(filenames) {
      const tags = (await tryGit('tag', '--list', '--sort=version:refname', TAGS))?.split('\n') ?? [];
      const pairs = tags
        .filter((tag) => tag !== '')
        .flatMap((tag) => filenames.map((filename) => ({ tag, filename })));
      if (pairs.length === 0) return undefined;
      const ids = await idsOf(filenames);
      const names = pairs.map(({ tag, filename }) => `refs/tags/${tag}:${pathOf(filename)}\n`);
      const found = (await git(['cat-file', '--batch-check=%(objectname)'], names.join(''))).split('\n');
      return pairs.find(({ filename }, index) => found[index] === ids.get(filename));
    },
    async privateFile(name) {
      return resolve(root, (await git(['rev-parse', '--git-path', name])).trim());
    },
  };
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (codeOf(error) === 'ENOENT') return 'git is not installed';
  const stderr = 'stderr' in error ? String(error.stderr).trim() : '';
  const [line = ''] = (stderr === '' ? error.message : stderr).split('\n');
  return line.replace(/^fatal: /, '');
}
