import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { MIGRATIONS_FOLDER, PACKAGE_ROOT } from '../../src/package-root.ts';
import { CHANGELOG as CHANGELOG_FILE, releaseEntries, unreleasedEntries } from '../sources/changelog.ts';
import { nextRelease, RELEASES, readReleases } from '../sources/releases.ts';

const CHANGELOG = join(PACKAGE_ROOT, CHANGELOG_FILE);
/** Releases are tagged on this branch. */
const BRANCH = 'main';

/** The steps that `npm version` runs, by the name of its script. */
const STEPS: Readonly<Record<string, () => void | Promise<void>>> = {
  /** Before anything is changed: refuses what cannot be released, and runs all lanes on the rest. */
  preversion() {
    const tree = releasableTree();
    const { status } = spawnSync(join(PACKAGE_ROOT, '.ci', 'run'), { stdio: 'inherit', cwd: PACKAGE_ROOT });
    if (status !== 0)
      throw new Error('.ci/run failed, so nothing was changed. Fix it, commit, and run this again.');
    if (releasableTree() !== tree) {
      throw new Error(
        'Files were changed by a commit while .ci/run ran, which it has not tested. Nothing was changed. Run this again.',
      );
    }
  },

  /** Before the commit, in which npm includes what is added to the index. */
  async version() {
    const { version } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
    const date = new Date().toISOString().slice(0, 10);
    const committed = await readCommittedMigrations(MIGRATIONS_FOLDER);
    const releases = await readReleases(PACKAGE_ROOT);
    const names = committed.map(({ filename }) => filename);
    const release = await nextRelease(PACKAGE_ROOT, releases, { version, date }, names);
    const record = join(PACKAGE_ROOT, RELEASES);
    writeFileSync(record, `${JSON.stringify([...releases, release], null, 2)}\n`);
    writeFileSync(CHANGELOG, releaseEntries(readFileSync(CHANGELOG, 'utf8'), release));
    git('add', record, CHANGELOG);
  },
};

/**
 * The files that would be released, as the tree of the last commit: its message may be amended.
 * @throws {Error} when it would not be all that is in the folder, or has nothing to announce.
 */
function releasableTree(): string {
  const branch = git('branch', '--show-current');
  if (branch !== BRANCH) {
    throw new Error(
      `This is branch ${branch || '(none)'}, and releases are made on ${BRANCH}. Nothing was changed. Run: git switch ${BRANCH}`,
    );
  }
  const changes = git('status', '--porcelain', '--untracked-files=all');
  if (changes !== '') {
    throw new Error(
      `These files are not committed, so the release would not have them:\n${changes}\nNothing was changed. Commit or remove them.`,
    );
  }
  const ignored = ignoredButPacked();
  if (ignored.length > 0) {
    throw new Error(
      `The tarball would have these files, which git ignores, so the tag would not have them:\n${ignored.join('\n')}\nNothing was changed. Remove them, or commit them with "git add --force".`,
    );
  }
  if (unreleasedEntries(readFileSync(CHANGELOG, 'utf8')).length === 0) {
    throw new Error(
      'CHANGELOG.md has no entry under Unreleased. Nothing was changed. Describe the release there, in lines that begin with "- ", and commit.',
    );
  }
  return git('rev-parse', 'HEAD^{tree}');
}

/**
 * The files that npm would pack, or compile into `dist`, although git ignores them: by `.gitignore`, or by a user's own
 * rules (`core.excludesFile`).
 */
function ignoredButPacked(): readonly string[] {
  const list = (...args: readonly string[]) => git('ls-files', '-z', ...args).split('\0');
  const tracked = new Set(list());
  // No scripts: they would build dist.
  const report = run('npm', ['pack', '--dry-run', '--json', '--ignore-scripts']);
  const [{ files }]: readonly [{ readonly files: readonly { readonly path: string }[] }] = JSON.parse(report);
  const packed = files.map(({ path }) => path).filter((path) => !path.startsWith('dist/'));
  const compiled = list('--others', '--', 'src').filter((path) => /\.[cm]?[jt]s$/.test(path));
  return [...packed.filter((path) => !tracked.has(path)), ...compiled];
}

function git(...args: readonly string[]): string {
  return run('git', args);
}

function run(program: string, args: readonly string[]): string {
  return execFileSync(program, args, { cwd: PACKAGE_ROOT, encoding: 'utf8' }).trim();
}

try {
  const name = process.env.npm_lifecycle_event ?? '';
  const step = STEPS[name];
  if (step === undefined) throw new Error('This is run by "npm version": see "Release" in CONTRIBUTING.md.');
  await step();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
