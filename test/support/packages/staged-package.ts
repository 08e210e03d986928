import { cpSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { type CopyOptions, copyPackage, type PackageCopy } from '../../../harness/package-copy.ts';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';
import { until } from '../until.ts';
import { committedMigrations, migrationNumber } from './committed-files.ts';

/** A package with three more migrations, which stop where a test wants them to. */
export interface StagedPackage extends PackageCopy {
  /** File names of the three. */
  readonly staged: readonly [first: string, second: string, third: string];
}

/**
 * Where the second of the three migrations waits while a gate is closed: between two of its statements, or during
 * its commit.
 */
export type Gate = 'midway' | 'commit';

/** Keys of the advisory locks for which the second migration waits. */
const GATE_KEYS: Readonly<Record<Gate, number>> = { midway: 101, commit: 102 };

/**
 * No lock timeout, since it would end the wait for a gate. The migrations need a database that has the
 * committed migrations of the package itself.
 */
export const STAGED_ENVIRONMENT = { FILESTORE_MIGRATION_LOCK_TIMEOUT_MS: '0' };

/** Each of the three creates a table first and another last, so that a test can see a half applied one. */
const MIGRATIONS = {
  'staged-first': `
create schema if not exists staged;
create table staged.first_begun ();
create table staged.first_ended ();`,
  'staged-second': `
create table staged.second_begun ();
select pg_catalog.pg_advisory_xact_lock(${GATE_KEYS.midway});
create table staged.at_commit (id integer);
create function staged.wait_for_gate() returns trigger language plpgsql as $$
begin
  perform pg_catalog.pg_advisory_xact_lock(${GATE_KEYS.commit});
  return null;
end
$$;
create constraint trigger wait_for_gate after insert on staged.at_commit
deferrable initially deferred for each row execute function staged.wait_for_gate();
insert into staged.at_commit values (1);
create table staged.second_ended ();`,
  'staged-third': `
create table staged.third_begun ();
create table staged.third_ended ();`,
};

export function copyStagedPackage(options: CopyOptions = {}): StagedPackage {
  const copy = copyPackage(options);
  const [first = '', second = '', third = ''] = Object.entries(MIGRATIONS).map(([name, sql]) =>
    copy.addMigration(name, sql),
  );
  copy.modelIsOf(third);
  return { ...copy, staged: [first, second, third] };
}

/** Closes a gate until it is opened, or the connection ends. */
export async function closeGate(client: Client, gate: Gate): Promise<void> {
  await client.query('select pg_catalog.pg_advisory_lock($1)', [GATE_KEYS[gate]]);
}

export async function openGate(client: Client, gate: Gate): Promise<void> {
  await client.query('select pg_catalog.pg_advisory_unlock($1)', [GATE_KEYS[gate]]);
}

/**
 * Waits until a migration waits for the gate.
 * @param except A server process to ignore.
 * @returns its server process.
 */
export async function untilAtGate(client: Client, gate: Gate, except = 0): Promise<number> {
  return until(async () => {
    const { rows } = await client.query<{ pid: number }>(
      `select l.pid
       from pg_catalog.pg_locks l
       join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
       where l.locktype = 'advisory' and not l.granted and l.objid = $1 and l.pid <> $2`,
      [GATE_KEYS[gate], except],
    );
    return rows[0]?.pid;
  });
}

/** Which migrations of a staged package a database has. */
export interface StagedState {
  /** Recorded file names, each as often as it is recorded. */
  readonly recorded: readonly string[];
  /** File names of staged migrations whose first or last table exists. */
  readonly begun: readonly string[];
  readonly ended: readonly string[];
}

export async function readStagedState(client: Client, { staged }: StagedPackage): Promise<StagedState> {
  const { rows: recorded } = await client.query<{ filename: string }>(
    'select filename from graphile_migrate.migrations order by filename',
  );
  const { rows: tables } = await client.query<{ name: string }>(
    "select tablename as name from pg_catalog.pg_tables where schemaname = 'staged'",
  );
  const found = new Set(tables.map(({ name }) => name));
  const having = (end: string) =>
    staged.filter((_, index) => found.has(`${['first', 'second', 'third'][index]}_${end}`));
  return {
    recorded: recorded.map(({ filename }) => filename),
    begun: having('begun'),
    ended: having('ended'),
  };
}

/** The state when so many of the staged migrations are applied once, and nothing of the others. */
export function stateAfter(copy: StagedPackage, count: number): StagedState {
  const staged = copy.staged.slice(0, count);
  const left = copy.staged.length - count;
  const applied = committedMigrations(copy.folder).slice(0, left === 0 ? undefined : -left);
  return {
    recorded: applied.map((filename) => `${migrationNumber(filename)}.sql`),
    begun: staged,
    ended: staged,
  };
}

const LIBRARY = join('node_modules', 'graphile-migrate');

/** A staged package whose graphile-migrate has another text in the place of one in dist/migration.js. */
export function copyWithRewordedLibrary(text: string, other: string): StagedPackage {
  const copy = copyStagedPackage({ without: ['graphile-migrate'] });
  cpSync(realpathSync(join(PACKAGE_ROOT, LIBRARY)), join(copy.folder, LIBRARY), { recursive: true });
  const file = join(copy.folder, LIBRARY, 'dist', 'migration.js');
  const code = readFileSync(file, 'utf8');
  if (!code.includes(text)) throw new Error(`${file} does not have "${text}"`);
  writeFileSync(file, code.replace(text, other));
  return copy;
}
