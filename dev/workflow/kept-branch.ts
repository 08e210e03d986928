import { FilestoreError, SettingsError } from '../../src/errors.ts';
import type { Repository } from '../sources/git.ts';

/** The branch whose migrations keep their numbers. */
export interface KeptBranch {
  /** Its name, for messages and for git. */
  readonly name: string;
  /** How it was found, as the end of a sentence that begins with "it is". */
  readonly why: string;
  /** File name to the id of its content. */
  readonly migrations: ReadonlyMap<string, string>;
}

const PUBLISHED = ['origin/HEAD', 'origin/main', 'origin/master'];
const LOCAL = ['main', 'master'];

/** Branches that others build on, without the checked-out one, which may have the migrations to renumber. */
export async function sharedBranches(repository: Repository): Promise<readonly string[]> {
  const current = await currentBranch(repository);
  return [...PUBLISHED, ...LOCAL].filter((name) => name !== current);
}

/**
 * Finds the branch whose migrations keep their numbers: the one that the caller names, or the first candidate that
 * separates the migrations of the folder into two parts with one file per number.
 * @param here Names of the committed migrations in the folder.
 * @throws {SettingsError} when git does not know the one that the caller names.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is none.
 */
export async function findKeptBranch(
  repository: Repository,
  requested: string | undefined,
  here: readonly string[],
): Promise<KeptBranch> {
  if (requested !== undefined) {
    const named = await branchAt(repository, requested, 'named by --onto');
    if (named !== undefined) return named;
    throw new SettingsError(
      '--onto',
      `--onto names "${requested}", which is not a commit that git knows here. Nothing was changed. Fetch it (git fetch), or name another one: git branch --all lists them.`,
    );
  }
  for (const [ref, why] of await candidates(repository)) {
    const branch = await branchAt(repository, ref, why);
    if (branch === undefined) continue;
    const { migrations } = branch;
    const others = here.filter((filename) => !migrations.has(filename));
    if (hasOneFilePerNumber([...migrations.keys()]) && hasOneFilePerNumber(others)) return branch;
  }
  throw new FilestoreError(
    'SCHEMA_CHANGE_REFUSED',
    'Cannot find the branch whose migrations keep their numbers: neither a merge nor origin/main, origin/master, main or master separates the migrations with the same number. Nothing was changed. Name the branch: npm run db:rebase -- --onto <branch>',
  );
}

async function candidates(repository: Repository): Promise<readonly (readonly [ref: string, why: string])[]> {
  const shared = 'the shared branch';
  const merged = (await repository.commitOf('MERGE_HEAD')) === undefined ? [] : ['MERGE_HEAD'];
  const isOnShared = LOCAL.includes((await currentBranch(repository)) ?? '');
  return [
    ...PUBLISHED.map((ref) => [ref, shared] as const),
    ...merged.map((ref) =>
      isOnShared
        ? (['HEAD', 'the branch that git merges into'] as const)
        : ([ref, 'the branch that git merges'] as const),
    ),
    ...LOCAL.map((ref) => [ref, shared] as const),
    isOnShared
      ? ['HEAD^1', 'the branch that the last merge went into']
      : ['HEAD^2', 'the branch that the last merge brought'],
  ];
}

async function branchAt(repository: Repository, ref: string, why: string): Promise<KeptBranch | undefined> {
  const commit = await repository.commitOf(ref);
  if (commit === undefined) return undefined;
  const name = /HEAD/.test(ref) && why !== 'named by --onto' ? await nameOf(repository, commit) : ref;
  return { name, why, migrations: await repository.migrationsAt(commit) };
}

/** A branch that is at the commit, else the commit's short id. */
async function nameOf(repository: Repository, commit: string): Promise<string> {
  const at = ['for-each-ref', '--points-at', commit, '--format=%(refname:short)'];
  const names = (await repository.tryGit(...at, 'refs/heads', 'refs/remotes')) ?? '';
  return names.split('\n')[0] || commit.slice(0, 12);
}

function currentBranch(repository: Repository): Promise<string | undefined> {
  return repository.tryGit('symbolic-ref', '--quiet', '--short', 'HEAD');
}

function hasOneFilePerNumber(filenames: readonly string[]): boolean {
  const numbers = filenames.map((filename) => Number.parseInt(filename, 10));
  return new Set(numbers).size === numbers.length;
}
