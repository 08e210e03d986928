import { renameSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { released } from '../../dev/check/gates/released.ts';
import { CHANGELOG, releaseEntries } from '../../dev/sources/changelog.ts';
import { nextRelease, RELEASES, type Release } from '../../dev/sources/releases.ts';
import { COMMITTED } from '../../dev/sources/sources.ts';
import { committedMigrations, lastCommitted } from '../support/packages/committed-files.ts';
import { linesOf, PASSED, packageToSpoil, type SpoiledPackage } from '../support/packages/spoiled-package.ts';

const spoil = packageToSpoil();
const names = committedMigrations();
const [first = ''] = names;
const last = `${COMMITTED}/${names.at(-1)}`;
const pathOf = (name: string) => `${COMMITTED}/${name}`;
const evaluate = async (copy: SpoiledPackage) => released.evaluate(await copy.sources());

/** A package with 1.0.0, which has all migrations but the last one, and 1.1.0. */
async function release(): Promise<SpoiledPackage> {
  const copy = spoil();
  let changelog = '## [Unreleased]\n\n- An entry.\n';
  const releases: Release[] = [];
  for (const [version, date, committed] of [
    ['1.0.0', '2026-12-01', names.slice(0, -1)],
    ['1.1.0', '2026-12-24', names],
  ] as const) {
    const next = await nextRelease(copy.folder, releases, { version, date }, committed);
    releases.push(next);
    changelog = releaseEntries(changelog, next);
  }
  copy.write(RELEASES, JSON.stringify(releases));
  copy.write(CHANGELOG, changelog);
  copy.write('package.json', '{"version": "1.1.0"}');
  return copy;
}

test('released migrations allow new ones', async () => {
  const copy = await release();
  copy.addMigration('more', 'select 1;');
  expect(await evaluate(copy)).toEqual(PASSED);
});

describe('a released file refuses', () => {
  const edit = (change: (text: string) => string) => (copy: SpoiledPackage) =>
    copy.write(last, change(copy.read(last)));
  const changed = `${last}:null was changed since 1.1.0`;

  test.each<[string, (copy: SpoiledPackage) => void, string]>([
    [
      'other SQL, even with valid hashes',
      (copy) => copy.rewriteMigration(basename(last), 'select 2;'),
      changed,
    ],
    [
      'other SQL with the released hash in a comment',
      (copy) =>
        copy.rewriteMigration(basename(last), `--! Hash: ${lastCommitted(copy.folder).hash}\nselect 2;`),
      changed,
    ],
    ['another message', edit((text) => text.replace(/^--! Message: .*$/m, '--! Message: Other')), changed],
    ['another header', edit((text) => text.replace(/^--! Message/m, '--! Foo: bar\n$&')), changed],
    ['blank lines at its end', edit((text) => `${text}\n\n`), changed],
    ['a space at the end of a line', edit((text) => text.replace(/\n$/, ' \n')), changed],
    [
      'to be missing',
      (copy) => rmSync(join(copy.folder, last)),
      `${last}:null was removed or renamed since 1.1.0`,
    ],
    [
      'another name',
      (copy) => renameSync(join(copy.folder, last), join(copy.folder, last.replace('.sql', '-better.sql'))),
      `${last}:null was removed or renamed since 1.1.0`,
    ],
    [
      'a file before it',
      (copy) => copy.write(pathOf(first.replace('.sql', '-more.sql')), 'select 1;'),
      `${pathOf(first.replace('.sql', '-more.sql'))}:null was added before ${first} of 1.0.0`,
    ],
  ])('%s', async (_, cheat, problem) => {
    const copy = await release();
    cheat(copy);
    expect(await linesOf(evaluate(copy))).toEqual([`${problem}, but databases have the released files`]);
  });
});

describe('the record of releases refuses', () => {
  type Change = (releases: Release[]) => unknown;
  const entry = (releases: Release[], index: number) => releases[index] ?? expect.fail();
  const otherRecord = (version: string) => `has another record of ${version} than CHANGELOG.md`;

  test.each<[string, Change, readonly string[]]>([
    [
      'a first release without migrations',
      (all) => all.splice(0, 1, { ...entry(all, 0), migrations: {} }),
      [
        'has no migration in 1.0.0, the first release',
        `has ${names.at(-1)} of 1.1.0 at the place of migration 1`,
        otherRecord('1.0.0'),
      ],
    ],
    [
      'to lose its last file',
      (all) => all.splice(1, 1, { ...entry(all, 1), migrations: {} }),
      [otherRecord('1.1.0')],
    ],
    [
      'to lose its last release',
      (all) => all.pop(),
      [
        'ends with 1.0.0, but package.json has version 1.1.0',
        'has the releases 1.0.0, but CHANGELOG.md has 1.0.0, 1.1.0',
      ],
    ],
    [
      'to be empty',
      (all) => all.splice(0),
      [
        'ends with 0.0.0, but package.json has version 1.1.0',
        'has the releases (none), but CHANGELOG.md has 1.0.0, 1.1.0',
      ],
    ],
    [
      'a release before the first',
      (all) => all.unshift({ version: '0.9.0', date: '2026-11-01', migrations: {} }),
      [
        'has no migration in 0.9.0, the first release',
        'has the releases 0.9.0, 1.0.0, 1.1.0, but CHANGELOG.md has 1.0.0, 1.1.0',
      ],
    ],
    [
      'another digest',
      (all) => {
        const migrations = { [basename(last)]: `sha256:${'0'.repeat(64)}` };
        all.splice(1, 1, { ...entry(all, 1), migrations });
      },
      [otherRecord('1.1.0')],
    ],
    [
      'a digest of another kind',
      (all) => all.splice(1, 1, { ...entry(all, 1), migrations: { [basename(last)]: 'sha1:0' } }),
      [`has no digest for ${basename(last)} of 1.1.0`, otherRecord('1.1.0')],
    ],
    [
      'an earlier day',
      (all) => all.splice(1, 1, { ...entry(all, 1), date: '2026-11-30' }),
      ['has 1.1.0 of 2026-11-30 after 1.0.0 of 2026-12-01', otherRecord('1.1.0')],
    ],
    [
      'a day that does not exist',
      (all) => all.splice(1, 1, { ...entry(all, 1), date: '2026-12-32' }),
      ['has 2026-12-32 for 1.1.0, which is no day', otherRecord('1.1.0')],
    ],
    [
      'an earlier version',
      (all) => all.splice(1, 1, { ...entry(all, 1), version: '0.10.0' }),
      [
        'has 0.10.0 after 1.0.0, which is not earlier',
        'ends with 0.10.0, but package.json has version 1.1.0',
        'has the releases 1.0.0, 0.10.0, but CHANGELOG.md has 1.0.0, 1.1.0',
      ],
    ],
    [
      'what is no version',
      (all) => all.splice(0, 1, { ...entry(all, 0), version: '1.0' }),
      ['has 1.0, which is no version', 'has the releases 1.0, 1.1.0, but CHANGELOG.md has 1.0.0, 1.1.0'],
    ],
  ])('%s', async (_, change, expected) => {
    const copy = await release();
    const releases: Release[] = JSON.parse(copy.read(RELEASES));
    change(releases);
    copy.write(RELEASES, JSON.stringify(releases));
    const lines = await linesOf(evaluate(copy));
    expect(lines.map((line) => line.replace(/^\S+:null /, ''))).toEqual(expected);
  });

  test.each([
    ['no file', undefined, 'is missing'],
    ['what is no JSON', '[{', 'is no JSON'],
    ['what is no list', '{}', 'is no list of releases'],
    [
      'an entry without a version',
      '[{"date": "2026-12-01"}]',
      'has no version, date and migrations in its entry 1',
    ],
  ])('%s', async (_, text, problem) => {
    const copy = await release();
    if (text === undefined) rmSync(join(copy.folder, RELEASES));
    else copy.write(RELEASES, text);
    expect(await linesOf(evaluate(copy))).toEqual([`${RELEASES}:null ${problem}`]);
  });

  test('a changelog that lost a release, and one with another record', async () => {
    const copy = await release();
    const changelog = copy.read(CHANGELOG);
    copy.write(CHANGELOG, changelog.replace(/## \[1\.0\.0\][\s\S]*/, ''));
    expect(await linesOf(evaluate(copy))).toEqual([
      `${RELEASES}:null has the releases 1.0.0, 1.1.0, but CHANGELOG.md has 1.1.0`,
    ]);
    copy.write(CHANGELOG, changelog.replace(/(?<=1\.0\.0[\s\S]*)sha256:/, 'sha256:0'));
    expect(await linesOf(evaluate(copy))).toEqual([`${RELEASES}:null ${otherRecord('1.0.0')}`]);
  });

  test('nothing of a package without releases, where the gate does not run', async () => {
    const copy = spoil();
    copy.write(RELEASES, '[]');
    copy.write(CHANGELOG, '## [Unreleased]\n');
    copy.write('package.json', '{"version": "0.0.0"}');
    expect(await evaluate(copy)).toMatchObject({
      state: 'not run',
      reason: expect.stringContaining(RELEASES),
    });
  });
});
