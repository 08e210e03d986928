import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError } from '../../src/errors.ts';
import { readIfThere } from '../read-if-there.ts';
import { COMMITTED } from './sources.ts';

export const RELEASES = 'migrations/releases.json';
/** The version of package.json before the first release. */
export const UNRELEASED = '0.0.0';

/** A release, as it is recorded in {@link RELEASES}. */
export interface Release {
  readonly version: string;
  /** Day of the release, such as `2026-01-31`. */
  readonly date: string;
  /** The migrations that it added, in their order: the digest of each file's bytes by its name. */
  readonly migrations: Readonly<Record<string, string>>;
}

/** A migration of a release, which never changes. */
export interface ReleasedMigration {
  readonly version: string;
  readonly name: string;
  readonly digest: string;
}

/** The record of a package, or what is wrong with its file. */
export type ReleaseRecord = { readonly releases: readonly Release[] } | { readonly broken: string };

export async function readRecord(root: string): Promise<ReleaseRecord> {
  const text = await readIfThere(join(root, RELEASES));
  return text === undefined ? { broken: 'is missing' } : parseRecord(text);
}

/** The releases in the text of a record, the oldest first. */
export function parseRecord(text: string): ReleaseRecord {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return { broken: 'is no JSON' };
  }
  if (!Array.isArray(value)) return { broken: 'is no list of releases' };
  const index = value.findIndex((release) => !isRelease(release));
  if (index === -1) return { releases: value };
  return { broken: `has no version, date and migrations in its entry ${index + 1}` };
}

/**
 * @returns the releases of a package, the oldest first.
 * @throws {FilestoreError} `SCHEMA_CHANGE_REFUSED` when the record cannot be read.
 */
export async function readReleases(root: string): Promise<readonly Release[]> {
  const record = await readRecord(root);
  if ('releases' in record) return record.releases;
  throw new FilestoreError(
    'SCHEMA_CHANGE_REFUSED',
    `${RELEASES} ${record.broken}, so it is unknown what is released. Restore it from version control. Nothing was changed.`,
  );
}

export function lastVersion(releases: readonly Release[]): string {
  return releases.at(-1)?.version ?? UNRELEASED;
}

export function releasedMigrations(releases: readonly Release[]): readonly ReleasedMigration[] {
  return releases.flatMap(({ version, migrations }) =>
    Object.entries(migrations).map(([name, digest]) => ({ version, name, digest })),
  );
}

/** The digest of a committed file. Git checks `*.sql` out with LF everywhere, so every byte counts. */
export async function digestOfFile(root: string, name: string): Promise<string> {
  return digestOf(await readFile(join(root, COMMITTED, name)));
}

/** What CHANGELOG.md has of a release, so that a change of its record contradicts that. */
export function sealOf({ version, date, migrations }: Release): string {
  return digestOf(JSON.stringify([version, date, Object.entries(migrations)]));
}

/**
 * The next release, with all migrations that earlier ones do not have.
 * @param committed The names of all committed files, in their order.
 */
export async function nextRelease(
  root: string,
  releases: readonly Release[],
  { version, date }: Pick<Release, 'version' | 'date'>,
  committed: readonly string[],
): Promise<Release> {
  const added = committed.slice(releasedMigrations(releases).length);
  const digests = await Promise.all(
    added.map(async (name) => [name, await digestOfFile(root, name)] as const),
  );
  return { version, date, migrations: Object.fromEntries(digests) };
}

function digestOf(bytes: string | Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

function isRelease(value: unknown): value is Release {
  if (typeof value !== 'object' || value === null) return false;
  const { version, date, migrations, ...more } = value as Readonly<Record<string, unknown>>;
  return (
    typeof version === 'string' &&
    typeof date === 'string' &&
    typeof migrations === 'object' &&
    migrations !== null &&
    !Array.isArray(migrations) &&
    Object.values(migrations).every((digest) => typeof digest === 'string') &&
    Object.keys(more).length === 0
  );
}
