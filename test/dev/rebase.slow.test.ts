import { execFileSync } from 'node:child_process';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { chain } from '../../dev/check/gates/chain.ts';
import { readSources } from '../../dev/sources/sources.ts';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { type CliResult, runCli } from '../support/command-line/command-line.ts';
import {
  addColumn,
  type Checkout,
  makeCheckout,
  renumbered,
  withoutPlace,
} from '../support/packages/branches.ts';
import { PASSED } from '../support/packages/spoiled-package.ts';

// Each test starts many processes, most of them git.
vi.setConfig({ testTimeout: 180_000 });

// A rebase never touches a database on another machine, so these tests are only about files.
const ELSEWHERE = {
  DATABASE_URL: 'postgres://db.example.com/filestore',
  SHADOW_DATABASE_URL: 'postgres://db.example.com/filestore_shadow',
  ROOT_DATABASE_URL: 'postgres://db.example.com/postgres',
};

let checkout: Checkout;

beforeEach(() => {
  checkout = makeCheckout();
});
afterEach(() => checkout.remove());

const rebase = (...args: readonly string[]): Promise<CliResult> =>
  runCli(['rebase', ...args], { folder: checkout.folder, env: ELSEWHERE });

/** Creates a branch with migrations, and returns the text of each file. */
function branch(name: string, ...migrations: readonly string[]): Readonly<Record<string, string>> {
  checkout.git('checkout', '--quiet', '-b', name, 'main');
  return extend(...migrations);
}

function extend(...migrations: readonly string[]): Readonly<Record<string, string>> {
  const added = migrations.map((migration) => checkout.add(migration, addColumn(migration)));
  if (added.length > 0) checkout.record(migrations.join(', '));
  return Object.fromEntries(added.map((filename) => [filename, checkout.read(filename)]));
}

/** Expects these files after the common ones, in this order, as one valid chain. */
async function expectOrder(...texts: readonly string[]): Promise<void> {
  const added = checkout.migrations().slice(checkout.base.length);
  expect(added.map((filename) => withoutPlace(checkout.read(filename)))).toEqual(texts.map(withoutPlace));
  expect(added).toEqual(added.map((filename, index) => renumbered(filename, checkout, index + 1)));
  expect(await chain.evaluate(await readSources(checkout.folder, false))).toEqual(PASSED);
}

async function expectRefusal(result: CliResult, exitCode: number, ...parts: readonly (string | RegExp)[]) {
  expect(result, result.output).toMatchObject({ exitCode, stdout: '' });
  for (const part of parts) expect(result.stderr).toMatch(part);
  expect(result.output).not.toMatch(/^\s+at /m);
}

describe('a rebase', () => {
  test('during a merge renumbers your own migrations after the others, and changes only the number and two header lines', async () => {
    const theirs = branch('theirs', 'their_a', 'their_b');
    const mine = branch('mine', 'my_a', 'my_b', 'my_c');
    checkout.git('merge', '--quiet', '--no-commit', 'theirs');
    const before = await readCommittedMigrations(join(checkout.folder, 'migrations')).catch((error) => error);
    expect(before).toMatchObject({ message: expect.stringContaining('npm run db:rebase') });

    const result = await rebase();
    expect(result, result.output).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(theirs), ...Object.values(mine));
    for (const [filename, text] of Object.entries(theirs)) expect(checkout.read(filename)).toBe(text);
    const after = await readCommittedMigrations(join(checkout.folder, 'migrations'));
    expect(result.stdout).toContain('Keeping the numbers of theirs: it is the branch that git merges.\n');
    for (const [index, [filename, text]] of Object.entries(mine).entries()) {
      const migration = after[checkout.base.length + Object.keys(theirs).length + index];
      const old = /^--! Hash: (.*)$/m.exec(text)?.[1];
      expect(result.stdout).toContain(
        `Renumbered ${filename} (${old})\n        to ${migration?.filename} (${migration?.hash})\n`,
      );
    }
    expect(result.stdout).toMatch(/\nNext: npm run db:docs, then npm run db:check/);
    expect(result.stderr).toMatch(/db\.example\.com.* was not changed: it is on another machine/);
  });

  test('after the merge does the same, and does nothing when run again', async () => {
    const theirs = branch('theirs', 'their_a');
    const mine = branch('mine', 'my_a', 'my_b');
    checkout.git('merge', '--quiet', '--no-edit', 'theirs');
    expect(await rebase()).toMatchObject({
      exitCode: 0,
      stdout: expect.stringContaining(
        'Keeping the numbers of theirs: it is the branch that the last merge brought.',
      ),
    });
    await expectOrder(...Object.values(theirs), ...Object.values(mine));

    const texts = checkout.texts();
    const again = await rebase();
    expect(again, again.output).toMatchObject({ exitCode: 0 });
    expect(again.stdout).toContain('Nothing to renumber: your migrations follow those of ');
    expect(checkout.texts()).toEqual(texts);
  });

  test('keeps the numbers of main when the merge is on the branch, on main, or already committed on main', async () => {
    const mine = branch('mine', 'my_a');
    checkout.git('checkout', '--quiet', 'main');
    const theirs = extend('their_a');
    for (const [on, merged, recorded] of [
      ['mine', 'main', false],
      ['mine', 'main', true],
      ['main', 'mine', false],
      ['main', 'mine', true],
    ] as const) {
      checkout.git('checkout', '--quiet', on);
      const start = checkout.git('rev-parse', 'HEAD');
      checkout.git('merge', '--quiet', ...(recorded ? ['--no-edit'] : ['--no-commit']), merged);
      const result = await rebase();
      expect(result, `${on} ${recorded}: ${result.output}`).toMatchObject({ exitCode: 0 });
      await expectOrder(...Object.values(theirs), ...Object.values(mine));
      checkout.git('reset', '--quiet', '--hard', start);
      checkout.git('clean', '--quiet', '--force', 'migrations');
    }
  });

  test('after commits on top of the merge, and after git rebase, keeps the numbers of the shared branch', async () => {
    const mine = branch('mine', 'my_a');
    checkout.git('checkout', '--quiet', 'main');
    const theirs = extend('their_a');
    checkout.git('checkout', '--quiet', '-b', 'replayed', 'mine');
    checkout.git('rebase', '--quiet', 'main');
    expect(await rebase()).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(theirs), ...Object.values(mine));

    checkout.git('reset', '--quiet', '--hard');
    checkout.git('clean', '--quiet', '--force', 'migrations');
    checkout.git('checkout', '--quiet', 'mine');
    checkout.git('merge', '--quiet', '--no-edit', 'main');
    checkout.git('commit', '--quiet', '--allow-empty', '--message', 'Later');
    const result = await rebase();
    expect(result).toMatchObject({ exitCode: 0 });
    expect(result.stdout).toContain('Keeping the numbers of main: it is the shared branch.');
    await expectOrder(...Object.values(theirs), ...Object.values(mine));
  });

  test('after a pull into main keeps published migrations, and renumbers the others', async () => {
    const published = branch('published', 'their_a');
    checkout.git('update-ref', 'refs/remotes/origin/main', 'published');
    checkout.git('checkout', '--quiet', 'main');
    const mine = extend('my_a');
    checkout.git('merge', '--quiet', '--no-commit', 'origin/main');
    expect(await rebase()).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(published), ...Object.values(mine));
  });

  test('renumbers an untracked migration too', async () => {
    const mine = checkout.add('my_a', addColumn('my_a'));
    const text = checkout.read(mine);
    rmSync(checkout.pathOf(mine));
    const theirs = extend('their_a');
    writeFileSync(checkout.pathOf(mine), text);
    expect(await rebase()).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(theirs), text);
  });

  test('keeps two migrations with the same slug', async () => {
    const theirs = branch('theirs', 'their_a');
    const names = ['my_a', 'my_b'];
    branch('mine');
    const mine = names.map((name) => checkout.read(checkout.add('refresh', addColumn(name))));
    checkout.record('Mine');
    checkout.git('merge', '--quiet', '--no-commit', 'theirs');
    expect(await rebase()).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(theirs), ...mine);
  });

  test('uses the branch of --onto, and reports it', async () => {
    const theirs = branch('theirs', 'their_a');
    const mine = branch('mine', 'my_a');
    checkout.git('merge', '--quiet', '--no-edit', 'theirs');
    const result = await rebase('--onto', 'HEAD^1');
    expect(result, result.output).toMatchObject({ exitCode: 0 });
    expect(result.stdout).toContain('Keeping the numbers of HEAD^1: it is named by --onto.');
    await expectOrder(...Object.values(mine), ...Object.values(theirs));
  });
});

describe('a rebase is refused and changes nothing', () => {
  test.each([
    ['for a branch that git does not know', ['--onto', 'nowhere'], 2, /"nowhere".*git fetch/],
    ['for a name that looks like an option', ['--onto=--all'], 2, /"--all".*git fetch/],
    ['without the branch', ['--onto'], 2, /--onto/],
    ['with an option of another command', ['--yes-erase', 'x'], 2, /rebase has no option --yes-erase/],
  ])('%s', async (_, args, exitCode, part) => {
    const texts = checkout.texts();
    await expectRefusal(await rebase(...args), exitCode, part);
    expect(checkout.texts()).toEqual(texts);
  });

  test('outside a git repository, and without git', async () => {
    const git = join(checkout.folder, '.git');
    const bare = { ...ELSEWHERE, PATH: '' };
    const without = await runCli(['rebase'], { folder: checkout.folder, env: bare });
    await expectRefusal(without, 1, /git is not installed\. Nothing was changed\. Run this in a clone/);
    rmSync(git, { recursive: true });
    await expectRefusal(await rebase(), 1, /not a git repository.*Run this in a clone/);
  });

  test('when no other branch can be found', async () => {
    branch('mine', 'my_a');
    checkout.git('branch', '--delete', '--force', 'main');
    await expectRefusal(
      await rebase(),
      1,
      /Cannot find the branch whose migrations.*npm run db:rebase -- --onto <branch>/,
    );
  });

  test('for a released migration, since the others must be renumbered instead', async () => {
    const theirs = branch('theirs', 'their_a');
    const mine = branch('mine', 'my_a');
    checkout.git('tag', 'v1.2.0');
    checkout.git('merge', '--quiet', '--no-commit', 'theirs');
    const texts = checkout.texts();
    const [released] = Object.keys(mine);
    await expectRefusal(
      await rebase(),
      1,
      `${released} is in v1.2.0 already`,
      /npm run db:rebase -- --onto v1\.2\.0\n$/,
    );
    expect(checkout.texts()).toEqual(texts);
    expect(await rebase('--onto', 'v1.2.0')).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(mine), ...Object.values(theirs));
  });

  test('for a migration that is on the shared branch', async () => {
    const theirs = branch('theirs', 'their_a');
    checkout.git('checkout', '--quiet', 'main');
    const published = extend('published');
    branch('mine');
    checkout.git('commit', '--quiet', '--allow-empty', '--message', 'Mine');
    checkout.git('merge', '--quiet', '--no-commit', 'theirs');
    const result = await rebase();
    await expectRefusal(result, 1, `${Object.keys(published)[0]} is in main already`, /--onto main\n$/);
    expect(await rebase('--onto', 'main')).toMatchObject({ exitCode: 0 });
    await expectOrder(...Object.values(published), ...Object.values(theirs));
  });

  test('for a branch that is not merged yet', async () => {
    const [theirs] = Object.keys(branch('theirs', 'their_a'));
    branch('mine', 'my_a');
    const texts = checkout.texts();
    await expectRefusal(await rebase('--onto', 'theirs'), 1, `theirs has ${theirs}`, /git merge theirs/);
    expect(checkout.texts()).toEqual(texts);
  });

  test('for two migrations with the same slug, until your own one is renamed', async () => {
    branch('theirs');
    const name = checkout.add('hints', addColumn('their_a'));
    const theirs = checkout.read(name);
    checkout.record('Theirs');
    branch('mine');
    checkout.add('hints', addColumn('my_a'));
    const mine = checkout.read(name);
    checkout.record('Mine');
    expect(() => checkout.git('merge', '--quiet', '--no-commit', 'theirs')).toThrow();
    const result = await rebase();
    await expectRefusal(result, 1, `migrations/committed/${name} differs from the one on theirs`);

    const [, command = ''] = /run this again: (.*)\n$/.exec(result.stderr) ?? [];
    execFileSync('sh', ['-ec', command], { cwd: checkout.folder, stdio: 'pipe' });
    expect(await rebase()).toMatchObject({ exitCode: 0 });
    await expectOrder(theirs, mine);
  });

  test('for an edited migration of either branch', async () => {
    const [theirs = ''] = Object.keys(branch('theirs', 'their_a'));
    const [mine = ''] = Object.keys(branch('mine', 'my_a'));
    checkout.git('merge', '--quiet', '--no-commit', 'theirs');
    const spoil = (filename: string) =>
      writeFileSync(checkout.pathOf(filename), `${checkout.read(filename)}select 1;\n`);
    const text = checkout.read(mine);
    spoil(mine);
    await expectRefusal(await rebase(), 4, `Migration ${mine} was edited`);
    writeFileSync(checkout.pathOf(mine), text);
    spoil(theirs);
    await expectRefusal(
      await rebase(),
      1,
      `${theirs} differs from the one on theirs`,
      /git checkout \w+ -- /,
    );
  });

  test('for migrations of two branches, neither of which is in the third', async () => {
    const [a] = Object.keys(branch('a', 'my_a'));
    const [b] = Object.keys(branch('b', 'my_b'));
    checkout.git('merge', '--quiet', '--no-edit', 'a');
    await expectRefusal(await rebase('--onto', 'main'), 1, `Migrations ${a} and ${b} have the same number`);
  });
});
