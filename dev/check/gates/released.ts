import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { codeOf } from '../../../src/errors.ts';
import type { Problem } from '../../sources/problem.ts';
import { COMMITTED, type Sources } from '../../sources/sources.ts';
import { type Gate, judge, notRun } from '../gate.ts';

const RELEASE_TAGS = 'v*';

export const released: Gate<Sources> = {
  name: 'released',
  proves: `the committed migrations of the last release (git tag ${RELEASE_TAGS}) are unchanged`,
  async evaluate({ root }) {
    const git = gitIn(root);
    try {
      await git('rev-parse', '--git-dir');
    } catch (error) {
      return notRun(`git cannot read this folder: ${reasonOf(error)}`);
    }
    const tag = await git('describe', '--tags', '--abbrev=0', '--match', RELEASE_TAGS).catch(() => undefined);
    if (tag === undefined) {
      const shallow = (await git('rev-parse', '--is-shallow-repository')) === 'true';
      return notRun(
        shallow
          ? `this clone is shallow and has no tag ${RELEASE_TAGS}. If there are releases, fetch them: git fetch --unshallow --tags`
          : `there is no release yet: this branch has no tag ${RELEASE_TAGS}`,
      );
    }
    // Compares with the working tree, so that uncommitted changes count too.
    const diff = ['diff', '--no-ext-diff', '--no-renames', '--relative', '--diff-filter=a'];
    const names = await git(...diff, '--name-only', '-z', tag, '--', COMMITTED);
    const changed = names.split('\0').filter((file) => file !== '');
    return judge(
      await Promise.all(
        changed.map(async (file): Promise<Problem> => {
          const hunks = await git(...diff, '--unified=0', tag, '--', file);
          const [, line, lines] = /^@@ -\S+ \+(\d+)(?:,(\d+))? @@/m.exec(hunks) ?? [];
          const gone = line === undefined || (line === '0' && lines === '0');
          return {
            file,
            line: gone ? null : Math.max(Number(line), 1),
            what: `${gone ? 'was removed' : 'was changed'} since ${tag}, but databases have the released version`,
            remedy: `Restore it: git checkout ${tag} -- ${file}. Write the change as a new migration.`,
          };
        }),
      ),
    );
  },
};

/** Returns a function that runs git in a folder, and returns the output without surrounding spaces. */
function gitIn(root: string) {
  return async (...args: readonly string[]): Promise<string> => {
    // Messages are shown to the user, so they should be in English.
    const options = { maxBuffer: 2 ** 28, env: { ...process.env, LC_ALL: 'C' } };
    return (await promisify(execFile)('git', ['-C', root, ...args], options)).stdout.trim();
  };
}

/** Git's own reason for a failure. */
function reasonOf(error: unknown): string {
  if (codeOf(error) === 'ENOENT') return 'git is not installed';
  return error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : String(error);
}
