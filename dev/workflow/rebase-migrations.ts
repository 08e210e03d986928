import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError, hasCode, RunAbortedError } from '../../src/errors.ts';
import { type CommittedMigration, readMigrationFiles } from '../../src/graphile/committed-migrations.ts';
import { isMigrationFile } from '../../src/graphile/migration-text.ts';
import { MIGRATIONS_FOLDER, PACKAGE_ROOT } from '../../src/package-root.ts';
import { type ConnectionSettings, describeConnection } from '../../src/settings/settings.ts';
import { capitalized } from '../../src/text.ts';
import { openRepository, RELEASE_TAGS, type Repository } from '../sources/git.ts';
import { COMMITTED } from '../sources/sources.ts';
import { committedFiles } from './committed-files.ts';
import { findOtherBranch, readPending } from './compare-history.ts';
import type { WorkflowContext } from './databases.ts';
import { isLocal } from './erase.ts';
import type { SqlFailure } from './explain-failure.ts';
import { findKeptBranch, type KeptBranch, sharedBranches } from './kept-branch.ts';
import { applyCommitted, forgetMigrations } from './rebase-database.ts';
import { type Renumbered, type Renumbering, renumber } from './renumber.ts';

export interface RebaseResult {
  readonly onto: Pick<KeptBranch, 'name' | 'why'>;
  readonly renumbered: readonly Renumbered[];
  /** Fixtures that both the renumbered migrations and those now before them include. */
  readonly sharedFixtures: readonly SharedFixture[];
  readonly database: DatabaseOutcome;
  readonly durationMs: number;
}

export type DatabaseOutcome =
  | { readonly type: 'applied'; readonly migrations: readonly string[] }
  | { readonly type: 'failed'; readonly failure: SqlFailure }
  | { readonly type: 'untouched'; readonly reason: string };

export interface SharedFixture {
  readonly fixture: string;
  /** The migration that is renumbered, under its new name. */
  readonly own: string;
  readonly other: string;
}

const FOLDER = join(MIGRATIONS_FOLDER, 'committed');

/**
 * Renumbers the migrations that are not on another branch to follow those that are, with new hashes, and updates the
 * development database. If it is killed, the next run does the rest.
 * @throws {FilestoreError} when this is not possible. Nothing was changed.
 * @throws {LockNotAcquiredError | RunAbortedError}
 */
export async function rebaseMigrations(
  context: WorkflowContext,
  { onto: requested }: { readonly onto: string | undefined },
): Promise<RebaseResult> {
  const startedAt = performance.now();
  const { main } = context.databases;
  const repository = await openRepository(PACKAGE_ROOT);
  const here = (await committedFiles(MIGRATIONS_FOLDER)).filter(isMigrationFile);
  const onto = await findKeptBranch(repository, requested, here);
  await refuseOtherContent(repository, onto, here);
  const { kept, own } = await readBothSides(onto);
  const renumbering = renumber(kept, own, await readTexts(own));
  const { changed, chain } = renumbering;
  await refuseToRenumber(repository, onto, changed);
  const stale = new Set(changed.map(({ before }) => before.hash));
  const obstacle = await findObstacle(main, chain, stale);
  if (context.signal.aborted) throw new RunAbortedError('Stopped on request. Nothing was changed.', []);
  // Before the files change, because afterwards the old hashes are unknown.
  if (obstacle === undefined) await forgetMigrations(main, stale);
  await replaceFiles(changed);
  return {
    onto,
    renumbered: changed,
    sharedFixtures: findSharedFixtures(kept, renumbering),
    database:
      obstacle === undefined ? await bringUpToDate(context, chain) : { type: 'untouched', reason: obstacle },
    durationMs: performance.now() - startedAt,
  };
}

/** Why the development database cannot get the migrations in their new order; undefined if it can. */
async function findObstacle(
  main: ConnectionSettings,
  chain: readonly CommittedMigration[],
  stale: ReadonlySet<string>,
): Promise<string | undefined> {
  if (isLocal(main)) return findOtherBranch(main, chain, stale);
  return `${capitalized(describeConnection(main))} was not changed: it is on another machine. If no one else uses it, recreate it: npm run db:reset`;
}

async function bringUpToDate(
  context: WorkflowContext,
  chain: readonly CommittedMigration[],
): Promise<DatabaseOutcome> {
  const pending = await readPending(context.databases.main, chain);
  const failure = pending.length === 0 ? undefined : await applyCommitted(context, chain);
  if (failure !== undefined) return { type: 'failed', failure };
  return { type: 'applied', migrations: pending.map(({ filename }) => filename) };
}

/** Refuses to continue unless the folder has all migrations of the other branch, with their content. */
async function refuseOtherContent(
  repository: Repository,
  { name, migrations }: KeptBranch,
  here: readonly string[],
): Promise<void> {
  const missing = [...migrations.keys()].filter((filename) => !here.includes(filename));
  if (missing.length > 0) {
    throw refusal(
      `${name} has ${missing.join(', ')}, which ${missing.length === 1 ? 'is' : 'are'} not in ${COMMITTED}. Nothing was changed. Merge it first (git merge ${name}) and run this again; restore deleted files with: git checkout ${name} -- ${COMMITTED}`,
    );
  }
  const ids = await repository.idsOf([...migrations.keys()]);
  const other = [...ids].find(([filename, id]) => migrations.get(filename) !== id)?.[0];
  if (other === undefined) return;
  const path = `${COMMITTED}/${other}`;
  const what = `${path} differs from the one on ${name}, whose migrations keep their number and content. Nothing was changed.`;
  const restore = `git checkout ${name} -- ${path}`;
  // Two branches can have a migration of the same name. Git reports a conflict, or keeps one of them.
  for (const ref of ['HEAD', 'MERGE_HEAD', 'REBASE_HEAD']) {
    const side = await repository.commitOf(ref);
    const id = side === undefined ? undefined : (await repository.migrationsAt(side)).get(other);
    if (id === undefined || id === migrations.get(other)) continue;
    const beside = path.replace(/-?\.sql$/, '-2.sql');
    throw refusal(
      `${what} If both branches have a migration of that name, rename yours, take theirs, and run this again: git show ${ref}:./${path} > ${beside} && ${restore}`,
    );
  }
  throw refusal(`${what} Restore it, and write the change as a new migration: ${restore}`);
}

/** The migrations of the other branch, and your own. */
async function readBothSides({ migrations }: KeptBranch) {
  const all = await readMigrationFiles(MIGRATIONS_FOLDER).catch((error) => {
    if (hasCode(error, 'MIGRATIONS_MISSING')) return [];
    throw error;
  });
  return {
    kept: all.filter(({ filename }) => migrations.has(filename)),
    own: all.filter(({ filename }) => !migrations.has(filename)),
  };
}

/** Other databases may have applied a migration that is released or on a shared branch. */
async function refuseToRenumber(
  repository: Repository,
  onto: KeptBranch,
  changed: readonly Renumbered[],
): Promise<void> {
  const ids = await repository.idsOf(changed.map(({ before }) => before.filename));
  if (ids.size === 0) return;
  const tags = (await repository.tryGit('tag', '--list', '--sort=version:refname', RELEASE_TAGS)) ?? '';
  for (const ref of [...tags.split('\n'), ...(await sharedBranches(repository))]) {
    const commit = ref === onto.name ? undefined : await repository.commitOf(ref);
    const there = commit === undefined ? undefined : await repository.migrationsAt(commit);
    const filename = [...ids.keys()].find((candidate) => there?.get(candidate) === ids.get(candidate));
    if (filename === undefined) continue;
    throw refusal(
      `${filename} is in ${ref} already, and other databases may have it under this number. Nothing was changed. Keep its number, and renumber the others: npm run db:rebase -- --onto ${ref}`,
    );
  }
}

async function readTexts(migrations: readonly CommittedMigration[]): Promise<ReadonlyMap<string, string>> {
  const texts = migrations.map(
    async ({ filename }) => [filename, await readFile(join(FOLDER, filename), 'utf8')] as const,
  );
  return new Map(await Promise.all(texts));
}

/**
 * Renames all files before it rewrites the first, so that a kill at any moment leaves each migration once, in order, and
 * with a valid hash. From the last to the first, because a new name can be the old name of the next file.
 */
async function replaceFiles(changed: readonly Renumbered[]): Promise<void> {
  for (const { before, after } of changed.toReversed()) {
    await rename(join(FOLDER, before.filename), join(FOLDER, after.filename));
  }
  for (const { after, text } of changed) {
    const path = join(FOLDER, after.filename);
    await writeFile(`${path}.new`, text, { flush: true });
    await rename(`${path}.new`, path);
  }
}

/** The renumbered migration now comes later, with the fixture's text of that branch. */
function findSharedFixtures(
  kept: readonly CommittedMigration[],
  { changed }: Renumbering,
): readonly SharedFixture[] {
  const fork = kept.findIndex(({ hash }) => hash === changed[0]?.before.previousHash);
  if (fork === -1) return [];
  return changed.flatMap(({ after }) =>
    fixturesOf(after).flatMap((fixture) => {
      const other = kept.slice(fork + 1).findLast((migration) => fixturesOf(migration).includes(fixture));
      return other === undefined ? [] : [{ fixture, own: after.filename, other: other.filename }];
    }),
  );
}

function fixturesOf({ body }: CommittedMigration): readonly string[] {
  return [...body.matchAll(/^--! Included (\S+)$/gm)].map((match) => match[1] ?? '');
}

function refusal(message: string): FilestoreError {
  return new FilestoreError('SCHEMA_CHANGE_REFUSED', message);
}
