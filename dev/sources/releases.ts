import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

export const RELEASES = 'migrations/releases.json';
/** The version of package.json before the first release. */
const UNRELEASED = '0.0.0';

/** A release, as it is recorded in {@link RELEASES}. */
export interface Release {
  readonly version: string;
  /** Day of the release, such as `2026-01-31`. */
  readonly date: string;
  /** The migrations that it added, in their order: the hash of each, which covers all before it, by file name. */
  readonly migrations: Readonly<Record<string, string>>;
}

/** A migration of a release, which never changes. */
export interface ReleasedMigration {
  readonly version: string;
  readonly name: string;
  readonly hash: string;
}

/** @returns the releases of a package, the oldest first. */
export async function readReleases(root: string): Promise<readonly Release[]> {
  return JSON.parse(await readFile(join(root, RELEASES), 'utf8'));
}

export function lastVersion(releases: readonly Release[]): string {
  return releases.at(-1)?.version ?? UNRELEASED;
}

export function releasedMigrations(releases: readonly Release[]): readonly ReleasedMigration[] {
  return releases.flatMap(({ version, migrations }) =>
    Object.entries(migrations).map(([name, hash]) => ({ version, name, hash })),
  );
}

/** Adds a release with all migrations that earlier ones do not have. */
export function addRelease(
  releases: readonly Release[],
  { version, date }: Pick<Release, 'version' | 'date'>,
  committed: readonly { readonly filename: string; readonly hash: string }[],
): readonly Release[] {
  const added = committed.slice(releasedMigrations(releases).length);
  return [
    ...releases,
    { version, date, migrations: Object.fromEntries(added.map(({ filename, hash }) => [filename, hash])) },
  ];
}
