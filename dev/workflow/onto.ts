import { readFile } from 'node:fs/promises';
import { FilestoreError, SettingsError } from '../../src/errors.ts';
import type { Repository } from './git.ts';

/** The branch whose migrations keep their numbers. */
export interface Onto {
  readonly commit: string;
  /** Its name, for messages and for git. */
  readonly name: string;
  /** How it was found, as the end of a sentence that begins with "it is". */
  readonly why: string;
  /** Branches that others build on. Their migrations must not be renumbered. */
  readonly shared: readonly SharedBranch[];
}

export interface SharedBranch {
  readonly name: string;
  readonly commit: string;
  /** File name to the id of its content. */
  readonly migrations: ReadonlyMap<string, string>;
}

const ANY_OTHER = 'Name the branch whose migrations keep their numbers: npm run db:rebase -- --onto <branch>';

/**
 * Finds the branch whose migrations keep their numbers. In this order: the one that the caller names; the other side
 * of a current merge or rebase; the first shared branch with one file per number, before and after the rebase; the
 * other side of the merge at HEAD.
 * @param here Names of the committed migrations in the folder.
 * @throws {SettingsError} when git does not know the one that the caller names.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when there is none.
 */
export async function chooseOnto(
  repository: Repository,
  requested: string | undefined,
  here: readonly string[],
): Promise<Onto> {
  if (requested !== undefined) {
    const commit = await repository.commitOf(requested);
    if (commit !== undefined) return { commit, name: requested, why: 'named by --onto', shared: [] };
    throw new SettingsError(
      '--onto',
      `--onto names "${requested}", which is not a commit that git knows here. Nothing was changed. Fetch it (git fetch), or name another one: git branch --all lists them.`,
    );
  }
  const shared = await sharedBranches(repository);
  const inOrder = shared.filter(({ migrations }) => hasOneFilePerNumber([...migrations.keys()]));
  const suitable = inOrder.filter(({ migrations }) =>
    hasOneFilePerNumber(here.filter((filename) => !migrations.has(filename))),
  );
  const choices = [...suitable, ...inOrder].map(({ commit, name }) => ({
    commit,
    name,
    why: 'the shared branch',
  }));
  const choice =
    (await sideUnderWay(repository, shared)) ??
    (suitable.length > 0 ? undefined : await sideOfLastMerge(repository, shared)) ??
    choices[0];
  if (choice === undefined) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `Cannot find the branch whose migrations keep their numbers: no merge is in progress, and there is no upstream, origin/main, origin/master, main or master whose migrations are in order. Nothing was changed. ${ANY_OTHER}`,
    );
  }
  // The checked-out branch may itself have the migrations to renumber, as main does after a pull.
  const current = await repository.tryGit('symbolic-ref', '--quiet', '--short', 'HEAD');
  return { ...choice, shared: inOrder.filter(({ name }) => name !== current) };
}

type Choice = Omit<Onto, 'shared'>;

/** The upstream, unless it is this branch's own copy; origin's default branch; the usual names. */
async function sharedBranches(repository: Repository): Promise<readonly SharedBranch[]> {
  const current = await repository.tryGit('symbolic-ref', '--quiet', '--short', 'HEAD');
  const upstream = await repository.tryGit('rev-parse', '--abbrev-ref', '@{upstream}');
  const isCopy = upstream?.slice(upstream.indexOf('/') + 1) === current;
  const names = [
    isCopy ? undefined : upstream,
    await repository.tryGit('symbolic-ref', '--quiet', '--short', 'refs/remotes/origin/HEAD'),
    ...['origin/main', 'origin/master', 'main', 'master'],
  ];
  const found: SharedBranch[] = [];
  for (const name of new Set(names)) {
    const commit = name === undefined ? undefined : await repository.commitOf(name);
    if (name === undefined || commit === undefined) continue;
    found.push({ name, commit, migrations: await repository.migrationsAt(commit) });
  }
  return found;
}

function hasOneFilePerNumber(filenames: readonly string[]): boolean {
  const numbers = filenames.map((filename) => Number.parseInt(filename, 10));
  return new Set(numbers).size === numbers.length;
}

async function sideUnderWay(
  repository: Repository,
  shared: readonly SharedBranch[],
): Promise<Choice | undefined> {
  for (const name of ['rebase-merge/onto', 'rebase-apply/onto']) {
    const text = await readFile(await repository.privateFile(name), 'utf8').catch(() => '');
    const commit = text === '' ? undefined : await repository.commitOf(text.trim());
    if (commit !== undefined) {
      return { commit, name: await nameOf(repository, commit), why: 'what git rebases onto' };
    }
  }
  const head = await repository.commitOf('HEAD');
  const other = await repository.commitOf('MERGE_HEAD');
  if (head === undefined || other === undefined) return undefined;
  // On main, the migrations of the merged branch are renumbered.
  const isMergedInto =
    !(await isShared(repository, other, shared)) && (await isShared(repository, head, shared));
  const commit = isMergedInto ? head : other;
  const why = isMergedInto ? 'the branch that git merges into' : 'the branch that git merges';
  return { commit, name: await nameOf(repository, commit), why };
}

/** After a merge into a shared branch, the shared branch's own migrations keep their numbers. */
async function sideOfLastMerge(
  repository: Repository,
  shared: readonly SharedBranch[],
): Promise<Choice | undefined> {
  const head = await repository.commitOf('HEAD');
  const into = await repository.commitOf('HEAD^1');
  const merged = await repository.commitOf('HEAD^2');
  if (head === undefined || into === undefined || merged === undefined) return undefined;
  const isMergedInto = await isShared(repository, head, shared);
  const commit = isMergedInto ? into : merged;
  const why = isMergedInto
    ? 'the branch that the last merge went into'
    : 'the branch that the last merge brought';
  return { commit, name: await nameOf(repository, commit), why };
}

async function isShared(
  repository: Repository,
  commit: string,
  shared: readonly SharedBranch[],
): Promise<boolean> {
  for (const branch of shared) {
    const answer = await repository.tryGit('merge-base', '--is-ancestor', commit, branch.commit);
    if (answer !== undefined) return true;
  }
  return false;
}

/** A branch that is at the commit, else the commit's short id. */
async function nameOf(repository: Repository, commit: string): Promise<string> {
  const at = ['for-each-ref', '--points-at', commit, '--format=%(refname:short)'];
  const names = (await repository.tryGit(...at, 'refs/heads', 'refs/remotes')) ?? '';
  return names.split('\n')[0] || commit.slice(0, 12);
}
