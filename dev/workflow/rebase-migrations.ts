import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type CommittedMigration, readMigrationFiles } from '../../src/db/committed-migrations.ts';
import { FilestoreError, hasCode, RunAbortedError } from '../../src/errors.ts';
import { isMigrationFile } from '../../src/graphile/migration-text.ts';
import { MIGRATIONS_FOLDER, PACKAGE_ROOT } from '../../src/package-root.ts';
import { COMMITTED } from '../check/sources.ts';
import { openRepository, type Repository } from './git.ts';
import { chooseOnto, type Onto } from './onto.ts';
import { applyCommitted, type DatabaseOutcome, forgetMigrations, planDatabase } from './rebase-database.ts';
import { type Renumbered, type Renumbering, renumber } from './renumber.ts';
import { finishReplacing, type Replacement, replaceFiles } from './replace-files.ts';
import { committedFiles } from './staging.ts';
import type { WorkflowContext } from './workflow-context.ts';

export interface RebaseResult {
  readonly onto: Pick<Onto, 'name' | 'why'>;
  /** Files that a killed run had begun to rename. */
  readonly finished: readonly Replacement[];
  readonly renumbered: readonly Renumbered[];
  /** Fixtures that both the renumbered migrations and those now before them include. */
  readonly sharedFixtures: readonly SharedFixture[];
  readonly database: DatabaseOutcome;
  readonly durationMs: number;
}

export interface SharedFixture {
  readonly fixture: string;
  /** The migration that is renumbered, under its new name. */
  readonly own: string;
  readonly other: string;
}

const FOLDER = join(MIGRATIONS_FOLDER, 'committed');
const JOURNAL = 'filestore-db-rebase.json';

/**
 * Renumbers the migrations that are not on another branch to follow those that are, with new hashes, and updates the
 * development database. If it is killed, the next run finishes it.
 * @throws {FilestoreError} when this is not possible. Nothing was changed.
 * @throws {LockNotAcquiredError | RunAbortedError}
 */
export async function rebaseMigrations(
  context: WorkflowContext,
  { onto: requested }: { readonly onto: string | undefined },
): Promise<RebaseResult> {
  const startedAt = performance.now();
  const repository = await openRepository(PACKAGE_ROOT);
  const journal = await repository.privateFile(JOURNAL);
  const finished = await finishReplacing(FOLDER, journal);
  const here = (await committedFiles(MIGRATIONS_FOLDER)).filter(isMigrationFile);
  const onto = await chooseOnto(repository, requested, here);
  const { kept, own } = await sortOut(repository, onto, here);
  const texts = await readTexts(own);
  const renumbering = renumber(kept, own, ({ filename }) => texts.get(filename) ?? '');
  const { changed, chain } = renumbering;
  await refuseToRenumber(repository, onto, changed);
  const plan = await planDatabase(context, renumbering);
  if (context.signal.aborted) throw new RunAbortedError('Stopped on request. Nothing was changed.', []);
  // Before the files change, because afterwards the old hashes are unknown.
  if (plan.type === 'usable') await forgetMigrations(context, plan.stale);
  await replaceFiles(FOLDER, journal, changed.map(replacementOf(texts)));
  return {
    onto,
    finished,
    renumbered: changed,
    sharedFixtures: findSharedFixtures(kept, renumbering),
    database: plan.type === 'usable' ? await applyCommitted(context, plan.pending, chain) : plan,
    durationMs: performance.now() - startedAt,
  };
}

/** Separates your own migrations from those of the other branch, which must be unchanged in the folder. */
async function sortOut(repository: Repository, onto: Onto, here: readonly string[]) {
  const there = await repository.migrationsAt(onto.commit);
  const missing = [...there.keys()].filter((filename) => !here.includes(filename));
  if (missing.length > 0) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `${onto.name} has ${missing.join(', ')}, which ${missing.length === 1 ? 'is' : 'are'} not in ${COMMITTED}. Nothing was changed. Merge it first (git merge ${onto.name}) and run this again; restore deleted files with: git checkout ${onto.name} -- ${COMMITTED}`,
    );
  }
  const ids = await repository.idsOf(here.filter((filename) => there.has(filename)));
  const other = [...ids].find(([filename, id]) => there.get(filename) !== id)?.[0];
  if (other !== undefined) throw await otherContentError(repository, onto, other);
  const migrations = await readMigrationFiles(MIGRATIONS_FOLDER).catch((error) => {
    if (hasCode(error, 'MIGRATIONS_MISSING')) return [];
    throw error;
  });
  const isKept = ({ filename }: CommittedMigration) => there.has(filename);
  return {
    kept: migrations.filter(isKept),
    own: migrations.filter((migration) => !isKept(migration)),
  };
}

/** Two branches can have a migration of the same name. Git reports a conflict, or keeps one of them. */
async function otherContentError(
  repository: Repository,
  { name, commit }: Onto,
  filename: string,
): Promise<FilestoreError> {
  const path = `${COMMITTED}/${filename}`;
  const there = (await repository.migrationsAt(commit)).get(filename);
  const what = `${path} differs from the one on ${name}, whose migrations keep their number and content. Nothing was changed.`;
  for (const ref of ['HEAD', 'MERGE_HEAD', 'REBASE_HEAD']) {
    const side = await repository.commitOf(ref);
    const id = side === undefined ? undefined : (await repository.migrationsAt(side)).get(filename);
    if (id === undefined || id === there) continue;
    const beside = path.replace(/(?:-?)\.sql$/, '-2.sql');
    return new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `${what} If both branches have a migration of that name, rename yours, take theirs, and run this again: git show ${ref}:./${path} > ${beside} && git checkout ${commit.slice(0, 12)} -- ${path}`,
    );
  }
  return new FilestoreError(
    'SCHEMA_CHANGE_REFUSED',
    `${what} Restore it, and write the change as a new migration: git checkout ${commit.slice(0, 12)} -- ${path}`,
  );
}

/** Other databases may have applied them. */
async function refuseToRenumber(
  repository: Repository,
  { shared }: Onto,
  changed: readonly Renumbered[],
): Promise<void> {
  const filenames = changed.map(({ before }) => before.filename);
  const release = await repository.releaseOf(filenames);
  if (release !== undefined) {
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `${release.filename} was released with ${release.tag}, and databases have it under this number. Nothing was changed. Keep its number, and renumber the others: npm run db:rebase -- --onto ${release.tag}`,
    );
  }
  const ids = await repository.idsOf(filenames);
  for (const { name, migrations } of shared) {
    const filename = filenames.find((candidate) => migrations.get(candidate) === ids.get(candidate));
    if (filename === undefined) continue;
    throw new FilestoreError(
      'SCHEMA_CHANGE_REFUSED',
      `${filename} is on ${name} already, and other databases may have it under this number. Nothing was changed. Keep its number, and renumber the others: npm run db:rebase -- --onto ${name}`,
    );
  }
}

async function readTexts(migrations: readonly CommittedMigration[]): Promise<ReadonlyMap<string, string>> {
  return new Map(
    await Promise.all(
      migrations.map(
        async ({ filename }) => [filename, await readFile(join(FOLDER, filename), 'utf8')] as const,
      ),
    ),
  );
}

function replacementOf(texts: ReadonlyMap<string, string>): (renumbered: Renumbered) => Replacement {
  return ({ before, after, text }) => ({
    from: before.filename,
    to: after.filename,
    before: texts.get(before.filename) ?? '',
    after: text,
  });
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
