import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CheckReport } from '../../dev/check/check-migrations.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { type Checkout, copyCheckout } from '../grown/checkout.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

const documented = readFileSync(join(PACKAGE_ROOT, 'CONTRIBUTING.md'), 'utf8');
/** The command of CONTRIBUTING.md that makes a release. */
const RELEASE = /^npm version minor -m "Release %s"$/m;
const VERSION = '0.1.0';
/** The second one is ignored by `.gitignore`, the others by rules of a user. */
const IGNORED = ['migrations/committed/run.log', 'schema/old.tgz', 'schema/prod.env', 'src/local.ts'];

let checkout: Checkout;
beforeEach(async () => {
  checkout = await copyCheckout(AbortSignal.timeout(120_000));
  // The lanes take too long here: these pass at once.
  write('.ci/run', '#!/bin/sh\necho "All lanes passed."\n');
  write('CHANGELOG.md', '# Changelog\n\n## [Unreleased]\n\n### Added\n\n- A first entry.\n');
  const manifest = JSON.parse(read('package.json'));
  write('package.json', `${JSON.stringify({ ...manifest, version: '0.0.0' }, null, 2)}\n`);
  write('migrations/releases.json', '[]');
  await checkout.record('Before the release');
  await git('branch', '--move', 'main');
});
afterEach(() => checkout.remove());

const read = (file: string) => readFileSync(join(checkout.folder, file), 'utf8');
const write = (file: string, text: string) => writeFileSync(join(checkout.folder, file), text);
const git = async (...args: readonly string[]) => (await checkout.run(['git', ...args])).trim();
const release = () => checkout.run(['sh', '-c', RELEASE.exec(documented)?.[0] ?? '']);
/** What a release changes. */
const state = async () => ({
  commit: await git('rev-parse', 'HEAD'),
  tags: await git('tag'),
  files: await git('status', '--porcelain'),
  version: JSON.parse(read('package.json')).version,
});

describe('a release', () => {
  test('is a commit and a tag with the version, the date in the changelog, the tarball and the SBOM', async () => {
    const before = await state();
    expect(await release()).toContain('All lanes passed.');

    expect(await state()).toEqual({
      commit: expect.not.stringMatching(before.commit),
      tags: `v${VERSION}`,
      files: '',
      version: VERSION,
    });
    expect(await git('cat-file', '-t', `v${VERSION}`)).toBe('tag');
    expect(await git('rev-parse', `v${VERSION}^{commit}`, 'HEAD^')).toBe(
      `${await git('rev-parse', 'HEAD')}\n${before.commit}`,
    );
    expect(await git('show', '--format=%s', '--name-only', 'HEAD')).toBe(
      `Release ${VERSION}\n\nCHANGELOG.md\nmigrations/releases.json\npackage-lock.json\npackage.json`,
    );
    expect(read('CHANGELOG.md')).toMatch(
      new RegExp(
        `^# Changelog\n\n## \\[Unreleased\\]\n\n## \\[${VERSION}\\] - \\d{4}-\\d\\d-\\d\\d\n\nMigrations: .* \\(record sha256:\\w+\\)\n\n### Added\n\n- A first entry.\n$`,
      ),
    );
    const name = `apphub-filestore-${VERSION}`;
    expect(existsSync(join(checkout.folder, `${name}.tgz`))).toBe(true);
    expect(JSON.parse(read(`${name}.cdx.json`)).metadata.component).toMatchObject({ version: VERSION });
  });

  test('may get another message for its last commit while the lanes run', async () => {
    write('.ci/run', '#!/bin/sh\ngit commit --quiet --amend --message "In other words"\n');
    await checkout.record('A slow run');
    await release();
    expect(await git('log', '-2', '--format=%s')).toBe(`Release ${VERSION}\nIn other words`);
  }, 180_000);

  test('makes the check refuse to lose its migrations', async () => {
    await release();
    expect(await gateOfReleases()).toEqual({ state: 'passed' });
    const [last = ''] = committedMigrations(checkout.folder).slice(-1);
    rmSync(join(checkout.folder, 'migrations', 'committed', last));
    expect(await gateOfReleases()).toMatchObject({
      state: 'failed',
      problems: [{ what: expect.stringContaining(`was removed or renamed since ${VERSION}`) }],
    });
  }, 180_000);

  test.each([
    ['a file is changed', () => appendFileSync(join(checkout.folder, 'README.md'), '\n'), /not clean/],
    [
      'a file is new',
      () => write('migrations/committed/new.sql', ''),
      /not committed.*\n\?\? migrations\/committed\/new\.sql\n/,
    ],
    [
      'a file is new and git is set to show none',
      async () => {
        await git('config', 'status.showUntrackedFiles', 'no');
        write('migrations/committed/new.sql', '');
      },
      /not committed.*\n\?\? migrations\/committed\/new\.sql\n/,
    ],
    [
      'the tarball would have files that git ignores',
      async () => {
        write('.git/my-rules', '*.env\n*.log\nlocal.ts\n');
        await git('config', 'core.excludesFile', join(checkout.folder, '.git', 'my-rules'));
        for (const file of IGNORED) write(file, '');
      },
      new RegExp(`which git ignores.*\\n${IGNORED.join('\\n')}\\nNothing was changed`),
    ],
    [
      'another branch is checked out',
      () => git('switch', '--quiet', '--create', 'other'),
      /This is branch other/,
    ],
    [
      'the changelog has nothing new',
      async () => {
        write('CHANGELOG.md', '## [Unreleased]\n\n### Added\n\n## [0.8.7] - 2026-01-31\n\n- An old entry.\n');
        await checkout.record('No entry');
      },
      /CHANGELOG\.md has no entry under Unreleased/,
    ],
    [
      'a lane fails',
      async () => {
        write('.ci/run', '#!/bin/sh\necho "A lane failed."\nexit 1\n');
        await checkout.record('A broken test');
      },
      /A lane failed\.\n\.ci\/run failed, so nothing was changed/,
    ],
    [
      'a commit changes files while the lanes run',
      async () => {
        write(
          '.ci/run',
          '#!/bin/sh\necho >> README.md\ngit commit --quiet --all --message "In the meantime"\n',
        );
        await checkout.record('A slow run');
      },
      /Files were changed by a commit while \.ci\/run ran/,
    ],
  ])('is refused when %s, and changes nothing', async (_, spoil, message) => {
    await spoil();
    const before = await state();
    await expect(release()).rejects.toThrow(message);
    const after = await state();
    expect({ ...after, commit: '' }).toEqual({ ...before, commit: '' });
    expect(after.tags).toBe('');
    expect(await git('log', '--format=%s')).not.toContain('Release');
  });
});

/** What `npm run db:check` says of the committed migrations of the last release. */
async function gateOfReleases() {
  const output = await checkout.run(['sh', '-c', 'npm run --silent db:check -- --json 2>/dev/null || true']);
  const { gates }: CheckReport = JSON.parse(output);
  const {
    name: _,
    proves: __,
    ...finding
  } = gates.find(({ name }) => name === 'released') ?? expect.fail(output);
  return finding;
}
