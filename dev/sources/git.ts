import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { codeOf, FilestoreError } from '../../src/errors.ts';
import { isMigrationFile } from '../../src/graphile/migration-text.ts';
import { COMMITTED } from './sources.ts';

const execute = promisify(execFile);

/** Tags of releases. */
export const RELEASE_TAGS = 'v*';

/** Git's view of the folder of a package, which may be a part of its repository. */
export interface Repository {
  /** The output of a command; undefined if it fails. */
  tryGit(...args: readonly string[]): Promise<string | undefined>;
  /** The commit of a name; undefined if git does not know it. */
  commitOf(ref: string): Promise<string | undefined>;
  /** The committed migrations of a commit: file name to the id of its content. */
  migrationsAt(commit: string): Promise<ReadonlyMap<string, string>>;
  /** The same for files of the folder. */
  idsOf(filenames: readonly string[]): Promise<ReadonlyMap<string, string>>;
}

/** Returns a function that runs git in a folder, and returns the output without surrounding spaces. */
export function gitIn(root: string) {
  return async (...args: readonly string[]): Promise<string> => {
    // Messages are shown to the user, so they should be in English.
    const env = { ...process.env, LC_ALL: 'C' };
    return (await execute('git', ['-C', root, ...args], { maxBuffer: 2 ** 28, env })).stdout.trim();
  };
}

/** @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is no git, or the folder is not in a repository. */
export async function openRepository(root: string): Promise<Repository> {
  const git = gitIn(root);
  const tryGit: Repository['tryGit'] = (...args) => git(...args).catch(() => undefined);
  await git('rev-parse', '--git-dir').catch((error) => {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `git cannot read this folder, so your migrations cannot be distinguished from others: ${reasonOf(error)}. Nothing was changed. Run this in a clone of the repository, with git installed.`,
    );
  });
  return {
    tryGit,
    async commitOf(ref) {
      // Git would read such a name as an option.
      if (ref.startsWith('-')) return undefined;
      return tryGit('rev-parse', '--verify', '--quiet', `${ref}^{commit}`);
    },
    async migrationsAt(commit) {
      const lines = (await git('ls-tree', commit, '--', `${COMMITTED}/`)).split('\n');
      const files = lines.map((line) => {
        const [, id = '', path = ''] = /^\d+ blob (\S+)\t(.*)$/.exec(line) ?? [];
        return [path.slice(COMMITTED.length + 1), id] as const;
      });
      return new Map(files.filter(([filename]) => isMigrationFile(filename)));
    },
    async idsOf(filenames) {
      if (filenames.length === 0) return new Map();
      const paths = filenames.map((filename) => `${COMMITTED}/${filename}`);
      const ids = (await git('hash-object', '--', ...paths)).split('\n');
      return new Map(filenames.map((filename, index) => [filename, ids[index] ?? '']));
    },
  };
}

/** Git's own reason for a failure. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (codeOf(error) === 'ENOENT') return 'git is not installed';
  const stderr = 'stderr' in error ? String(error.stderr).trim() : '';
  return (stderr === '' ? error.message : stderr).split('\n')[0]?.replace(/^fatal: /, '') ?? '';
}
