import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { type Gate, judge, notRun, type Problem } from '../gate.ts';
import { COMMITTED, type Sources } from '../sources.ts';

const run = promisify(execFile);
/** Tags of releases. */
export const TAGS = 'v*';

export const released: Gate<Sources> = {
  name: 'released',
  proves: `the committed migrations of the last release (git tag ${TAGS}) are unchanged`,
  async check({ root }) {
    const git = async (...args: readonly string[]) =>
      (await run('git', ['-C', root, ...args], { maxBuffer: 2 ** 28 })).stdout.trim();
    try {
      await git('rev-parse', '--git-dir');
    } catch (error) {
      return notRun(`git cannot read this folder: ${firstLineOf(error)}`);
    }
    const tag = await git('describe', '--tags', '--abbrev=0', '--match', TAGS).catch(() => undefined);
    if (tag === undefined) {
      const shallow = (await git('rev-parse', '--is-shallow-repository')) === 'true';
      return notRun(
        shallow
          ? `this clone is shallow and has no tag ${TAGS}. If there are releases, fetch them: git fetch --unshallow --tags`
          : `there is no release yet: this branch has no tag ${TAGS}`,
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

function firstLineOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const stderr = 'stderr' in error ? String(error.stderr).trim() : '';
  return (stderr === '' ? error.message : stderr).split('\n')[0] ?? '';
}
