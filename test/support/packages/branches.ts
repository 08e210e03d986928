import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { copyPackage, type PackageCopy } from '../../../harness/package-copy.ts';
import { committedMigrations } from './committed-files.ts';

/** A copy of the package in a separate git repository. Its branch "main" has the same migrations. */
export interface Checkout extends PackageCopy {
  /** The migrations that both branches have. */
  readonly base: readonly string[];
  git(...args: readonly string[]): string;
  /** Adds a committed migration with a message, and returns its file name. */
  add(name: string, sql: string): string;
  /** Commits the working tree. */
  record(message: string): void;
  /** File names of the committed migrations, in order. */
  migrations(): readonly string[];
  /** Path of a committed migration. */
  pathOf(filename: string): string;
  read(filename: string): string;
  /** Every committed migration with its text. */
  texts(): Readonly<Record<string, string>>;
}

export function makeCheckout(): Checkout {
  const copy = copyPackage();
  const identity = ['-c', 'user.name=Developer', '-c', 'user.email=developer@example.com'];
  const git: Checkout['git'] = (...args) =>
    execFileSync('git', [...identity, ...args], { cwd: copy.folder, stdio: 'pipe', encoding: 'utf8' }).trim();
  const pathOf = (filename: string) => join(copy.folder, 'migrations', 'committed', filename);
  const read = (filename: string) => readFileSync(pathOf(filename), 'utf8');
  const record = (message: string) => {
    git('add', '--all', 'migrations', 'schema');
    git('commit', '--quiet', '--message', message);
  };
  git('init', '--quiet', '--initial-branch', 'main');
  record('Base');
  return {
    ...copy,
    base: committedMigrations(copy.folder),
    git,
    add(name, sql) {
      const filename = copy.addMigration(name, sql);
      writeFileSync(pathOf(filename), read(filename).replace('\n\n', `\n--! Message: ${name}\n\n`));
      return filename;
    },
    record,
    migrations: () => committedMigrations(copy.folder),
    pathOf,
    read,
    texts: () =>
      Object.fromEntries(committedMigrations(copy.folder).map((filename) => [filename, read(filename)])),
  };
}

/** A migration that can run again, like all of this package. */
export function addColumn(name: string): string {
  return `alter table filestore.nodes add column if not exists ${name} text;\n`;
}

/** A migration's file name with another number: the last common number plus an offset. */
export function renumbered(filename: string, { base }: Pick<Checkout, 'base'>, more: number): string {
  return filename.replace(/^\d+/, (number) => String(base.length + more).padStart(number.length, '0'));
}

/** The text without the header lines that give its place in the chain. */
export function withoutPlace(text: string): string {
  return text.replace(/^--! (Previous|Hash): .*$/gm, '--! $1: …');
}
