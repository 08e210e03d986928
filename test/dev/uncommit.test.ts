import { appendFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';
import { nextRelease, RELEASES } from '../../dev/sources/releases.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { workflowEnv } from '../support/command-line/workflow.ts';
import { addMergedBranches } from '../support/packages/branches.ts';
import { committedMigrations, migrationFiles } from '../support/packages/committed-files.ts';

let copy: PackageCopy;

beforeEach(() => {
  copy = copyPackage();
});
afterEach(() => copy.remove());

describe('uncommit is refused and changes nothing', () => {
  /** Nothing may be asked of the development database, so it is not there. */
  async function expectRefusal(args: readonly string[], reason: string): Promise<void> {
    const before = migrationFiles(copy.folder);
    const env = { ...workflowEnv(inject('adminUrl'), 'is_not_there') };
    const result = await runCli(['uncommit', ...args], { folder: copy.folder, env });
    expect(result).toMatchObject({ exitCode: 1, stdout: '' });
    expect(result.stderr).toContain(`SCHEMA_CHANGE_REFUSED: ${reason}`);
    expect(result.stderr).toMatch(/ Nothing was changed\.\n$/);
    expect(migrationFiles(copy.folder)).toEqual(before);
  }

  test('after a merge that left two last migrations, until one is named', async () => {
    const { theirs, mine } = addMergedBranches(copy, ['their_hint'], ['my_hint']);
    const both = `${mine} and ${theirs}`;
    await expectRefusal(
      [],
      `Two branches were merged: ${both} are both last. Name yours: npm run db:uncommit -- --migration <file>`,
    );
  });

  test('for a migration that another one follows', async () => {
    const [before = '', last] = committedMigrations(copy.folder).slice(-2);
    await expectRefusal(
      ['--migration', before],
      `${before} is followed by ${last}. Uncommit that one first.`,
    );
  });

  describe('for a migration that is released', () => {
    const [last = ''] = committedMigrations().slice(-1);
    const other = last.replace(/-.*/, '-x.sql');
    const pathOf = (name: string) => join(copy.folder, 'migrations', 'committed', name);
    const since = 'cannot be moved back, because databases have it since release 1.2.3.';

    test.each<[string, () => void, string]>([
      ['as it is', () => undefined, `${last} ${since}`],
      ['edited', () => appendFileSync(pathOf(last), '\n'), `${last} ${since}`],
      ['renamed', () => renameSync(pathOf(last), pathOf(other)), `${other} ${since}`],
      [
        'renamed and edited',
        () => {
          renameSync(pathOf(last), pathOf(other));
          appendFileSync(pathOf(other), '\n');
        },
        `${other} cannot be moved back while ${last} of release 1.2.3 is missing.`,
      ],
      [
        'without a record',
        () => rmSync(join(copy.folder, RELEASES)),
        'migrations/releases.json is missing, so it is unknown what is released.',
      ],
    ])('%s', async (_, cheat, reason) => {
      const release = await nextRelease(copy.folder, [], { version: '1.2.3', date: '2026-12-01' }, [last]);
      writeFileSync(join(copy.folder, RELEASES), JSON.stringify([release]));
      cheat();
      await expectRefusal([], reason);
    });
  });

  test('for a migration that does not exist', async () => {
    await expectRefusal(['--migration', '1.sql'], 'There is no 1.sql in migrations/committed.');
  });
});
