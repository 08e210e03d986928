import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { RELEASES, readReleases } from '../../dev/sources/releases.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import type { Checkout } from '../grown/checkout.ts';
import { runCommand } from '../grown/commands.ts';
import { commitCurrent, runStep } from '../grown/grow.ts';
import { type Example, readExamples, runsOf } from '../migrations/guide.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';

/** A version of the package. */
export interface Version {
  readonly name: string;
  /** The folder of its checkout. */
  readonly folder: string;
}

/** A version to which a database is upgraded. */
export interface NewVersion extends Version {
  /** SQL of the owner that follows the migrations. */
  readonly afterwards: readonly string[];
}

export interface FromOptions {
  /** A released version, such as `1.0.0`. */
  readonly from?: string;
  /** The folder of a checkout. */
  readonly fromFolder?: string;
}

/** These need a release between their steps. */
const SEVERAL_RELEASES: readonly string[] = [
  'A rule that old rows may break',
  'A rename across two releases',
];

/**
 * The version that is upgraded: a folder, a released version, or the last released one. Without a release, the last commit.
 * @param folder An existing folder for its checkout.
 * @param root The repository. Default: this one.
 */
export async function findFrom(
  { from, fromFolder }: FromOptions,
  folder: string,
  signal: AbortSignal,
  root: string = PACKAGE_ROOT,
): Promise<Version> {
  if (fromFolder !== undefined) return { name: fromFolder, folder: fromFolder };
  const releases = await readReleases(root);
  const version = from ?? releases.at(-1)?.version;
  if (version !== undefined && !releases.some((release) => release.version === version)) {
    const known = releases.map((release) => release.version).join(', ') || 'none';
    throw new Error(
      `Version ${version} is not in ${RELEASES} (${known}). Give a released version, or --from-folder.`,
    );
  }
  const run = async (...command: readonly string[]) =>
    (await runCommand(command, { cwd: root, env: process.env, signal })).trim();
  const commit = version === undefined ? 'HEAD' : await commitOf(version, run);
  const checkout = join(folder, 'checkout');
  const archive = join(folder, 'checkout.tar');
  mkdirSync(checkout);
  await run('git', 'archive', '--output', archive, commit);
  await run('tar', '-xf', archive, '-C', checkout);
  const name = version ?? `commit ${await run('git', 'rev-parse', '--short', commit)}`;
  return { name, folder: checkout };
}

/** By its tag, else the commit that recorded it. */
async function commitOf(
  version: string,
  run: (...command: readonly string[]) => Promise<string>,
): Promise<string> {
  const tag = `refs/tags/v${version}^{commit}`;
  const tagged = await run('git', 'rev-parse', '--verify', '--quiet', tag).catch(() => '');
  if (tagged !== '') return tagged;
  const text = `"version": "${version}"`;
  const log = await run('git', 'log', '--format=%H', '--reverse', `-S${text}`, '--', RELEASES);
  const [commit = ''] = log.split('\n');
  if (commit !== '') return commit;
  throw new Error(
    `The repository has neither the tag v${version} nor the commit that recorded it. Run "git fetch --unshallow --tags", or give --from-folder.`,
  );
}

/** The work tree. */
export const WORK_TREE: NewVersion = { name: 'the work tree', folder: PACKAGE_ROOT, afterwards: [] };

/** Whether the work tree has migrations that another checkout lacks. */
export function hasNewMigrations({ folder }: Version): boolean {
  return committedMigrations().length > committedMigrations(folder).length;
}

/** Commits examples of migrations/README.md in a copy of the checkout, as a developer does. */
export async function growByExamples(
  checkout: Checkout,
  titles = examplesOfOneRelease(),
): Promise<NewVersion> {
  const afterwards: string[] = [];
  for (const example of readExamples().filter(({ title }) => titles.includes(title))) {
    afterwards.push(...(await commitExample(checkout, example)));
  }
  await runStep(checkout, 'db:docs');
  return {
    name: 'the work tree with examples of migrations/README.md',
    folder: checkout.folder,
    afterwards,
  };
}

function examplesOfOneRelease(): readonly string[] {
  return readExamples()
    .map(({ title }) => title)
    .filter((title) => !SEVERAL_RELEASES.includes(title));
}

/** @returns what the owner runs between its migrations. It can run after them too. */
async function commitExample(checkout: Checkout, example: Example): Promise<readonly string[]> {
  console.log(`Example: ${example.title}`);
  const afterwards: string[] = [];
  for (const { by, sql } of runsOf(example, checkout.folder)) {
    if (by === 'owner') afterwards.push(sql);
    else await commitCurrent(checkout, example.title);
  }
  return afterwards;
}
