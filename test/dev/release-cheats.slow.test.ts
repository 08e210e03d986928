import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { released } from '../../dev/check/gates/released.ts';
import { CHANGELOG, recordLine } from '../../dev/sources/changelog.ts';
import { digestOfFile, RELEASES, type Release } from '../../dev/sources/releases.ts';
import { COMMITTED, readSources } from '../../dev/sources/sources.ts';
import { hashOf } from '../../src/graphile/migration-text.ts';
import { type Checkout, copyCheckout } from '../grown/checkout.ts';
import { committedMigrations, lastCommitted } from '../support/packages/committed-files.ts';

let checkout: Checkout;
/** The migrations of 1.0.0, and the one that 1.1.0 adds. */
let names: readonly string[];
const read = (file: string) => readFileSync(join(checkout.folder, file), 'utf8');
const write = (file: string, text: string) => writeFileSync(join(checkout.folder, file), text);
const edit = (file: string, change: (text: string) => string) => write(file, change(read(file)));
const releasesOf = (): Release[] => JSON.parse(read(RELEASES));
const pathOf = (name = '') => `${COMMITTED}/${name}`;
const last = () => pathOf(names.at(-1));
const evaluate = async () => released.evaluate(await readSources(checkout.folder, false));

async function release(version: string): Promise<void> {
  edit(CHANGELOG, (text) => text.replace('## [Unreleased]\n', `$&\n- An entry of ${version}.\n`));
  await checkout.record('An entry');
  await checkout.run(['npm', 'version', version, '-m', 'Release %s']);
}

function addMigration(): void {
  const { hash } = lastCommitted(checkout.folder);
  const number = String(names.length + 1).padStart(6, '0');
  const body = 'select 1;\n';
  write(
    pathOf(`${number}-more.sql`),
    `--! Previous: ${hash}\n--! Hash: ${hashOf(body, hash ?? null)}\n--! Message: More\n\n${body}`,
  );
}

beforeAll(async () => {
  checkout = await copyCheckout(AbortSignal.timeout(240_000));
  write('.ci/run', '#!/bin/sh\n');
  write(CHANGELOG, '# Changelog\n\n## [Unreleased]\n');
  edit('package.json', (text) => text.replace(/"version": ".*?"/, '"version": "0.0.0"'));
  write(RELEASES, '[]');
  await checkout.record('Before the releases');
  await checkout.run(['git', 'branch', '--move', 'main']);
  names = committedMigrations(checkout.folder);
  await release('1.0.0');
  await release('1.0.1');
  addMigration();
  names = committedMigrations(checkout.folder);
  await release('1.1.0');
}, 240_000);
afterAll(() => checkout?.remove());
afterEach(async () => {
  await checkout.run(['git', 'reset', '--quiet', '--hard', 'v1.1.0']);
  await checkout.run(['git', 'clean', '--quiet', '--force', COMMITTED]);
});

/** Changes the record, and CHANGELOG.md and package.json so that they agree. */
function forge(change: (releases: Release[]) => void): void {
  const releases = releasesOf();
  change(releases);
  write(RELEASES, JSON.stringify(releases));
  const sections = releases.map(
    (one) => `## [${one.version}] - ${one.date}\n\n${recordLine(one)}\n\n- An entry.\n`,
  );
  write(CHANGELOG, `## [Unreleased]\n\n${sections.toReversed().join('\n')}`);
  edit('package.json', (text) =>
    text.replace(/"version": ".*?"/, `"version": "${releases.at(-1)?.version ?? '0.0.0'}"`),
  );
}

describe('of the releases 1.0.0, 1.0.1 and 1.1.0', () => {
  test('the record has the migrations that each of them added', async () => {
    expect(releasesOf().map(({ version, migrations }) => [version, Object.keys(migrations)])).toEqual([
      ['1.0.0', names.slice(0, -1)],
      ['1.0.1', []],
      ['1.1.0', names.slice(-1)],
    ]);
    expect(await evaluate()).toEqual({ state: 'passed' });
  });

  test('an earlier one still passes where the later ones have tags', async () => {
    await checkout.run(['git', 'checkout', '--quiet', 'v1.0.1']);
    expect(await evaluate()).toEqual({ state: 'passed' });
    await checkout.run(['git', 'checkout', '--quiet', 'main']);
  });

  test.each<[string, () => unknown, string]>([
    ['a statement', () => edit(last(), (text) => `${text}select 2;\n`), 'was changed since 1.1.0'],
    [
      'a message',
      () => edit(pathOf(names[0]), (text) => text.replace(/^--! Message: .*$/m, '--! Message: Other')),
      'was changed since 1.0.0',
    ],
    [
      'a header line',
      () => edit(last(), (text) => text.replace(/^--! Message/m, '--! Foo: bar\n$&')),
      'was changed since 1.1.0',
    ],
    ['blank lines', () => edit(last(), (text) => `${text}\n\n`), 'was changed since 1.1.0'],
    [
      'a name',
      () => renameSync(join(checkout.folder, last()), join(checkout.folder, last().replace('more', 'less'))),
      'was removed or renamed since 1.1.0',
    ],
    ['a file', () => rmSync(join(checkout.folder, last())), 'was removed or renamed since 1.1.0'],
    ['the record', () => write(RELEASES, '[]'), 'ends with 0.0.0'],
    [
      'the record and package.json',
      () => {
        write(RELEASES, '[]');
        edit('package.json', (text) => text.replace('"version": "1.1.0"', '"version": "0.0.0"'));
      },
      'CHANGELOG.md has 1.0.0, 1.0.1, 1.1.0',
    ],
    [
      'the digest of an edited file',
      async () => {
        edit(last(), (text) => `${text}\n`);
        const digest = await digestOfFile(checkout.folder, names.at(-1) ?? '');
        edit(RELEASES, (text) => text.replace(/sha256:\w+(?![\s\S]*sha256:)/, digest));
      },
      'has another record of 1.1.0 than CHANGELOG.md',
    ],
    [
      'all traces but the tag of a file',
      () => forge((all) => all.splice(2, 1, { ...(all[2] ?? expect.fail()), migrations: {} })),
      'the tag v1.1.0',
    ],
    ['all traces but the tag of a release', () => forge((all) => all.pop()), 'the tag v1.1.0'],
    ['all traces but the tags of all releases', () => forge((all) => all.splice(0)), 'the tag v1.0.0'],
    [
      'all traces but the tags of a day, also when that is committed',
      async () => {
        forge((all) => all.splice(0, 1, { ...(all[0] ?? expect.fail()), date: '2020-01-01' }));
        await checkout.record('Nothing to see');
      },
      'the tag v1.0.0',
    ],
  ])('%s cannot be changed', async (_, cheat, problem) => {
    await cheat();
    const found = await evaluate();
    expect(found.state).toBe('failed');
    expect(JSON.stringify(found)).toContain(problem);
  });
});
