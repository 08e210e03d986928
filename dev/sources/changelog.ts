import { type Release, sealOf } from './releases.ts';

export const CHANGELOG = 'CHANGELOG.md';
const HEADING = '## [Unreleased]\n';
const RELEASE = /^## \[(?!Unreleased\])(.*?)\] - (.*)\n\n(.*)$/gm;

/** A release, as the changelog has it. */
export interface ChangelogRelease {
  readonly version: string;
  readonly date: string;
  /** The line below its heading, which {@link recordLine} writes. */
  readonly record: string;
}

/** @returns the releases of the changelog, the oldest first. */
export function changelogReleases(changelog: string): readonly ChangelogRelease[] {
  return [...changelog.matchAll(RELEASE)]
    .map(([, version = '', date = '', record = '']) => ({ version, date, record }))
    .toReversed();
}

/** Which migrations a release added, and the digest of its record. */
export function recordLine(release: Release): string {
  const names = Object.keys(release.migrations);
  const [first, last] = [names[0], names.at(-1)];
  const added =
    first === undefined ? 'No migration' : first === last ? `\`${first}\`` : `\`${first}\` to \`${last}\``;
  return `Migrations: ${added} (record ${sealOf(release)})`;
}

/** The first lines of the entries below Unreleased. */
export function unreleasedEntries(changelog: string): readonly string[] {
  const [, section = ''] = changelog.split(HEADING);
  return section.split(/^## /m)[0]?.match(/^- .*$/gm) ?? [];
}

/** Makes the section Unreleased that of the release, and starts a new one. */
export function releaseEntries(changelog: string, release: Release): string {
  const { version, date } = release;
  return changelog.replace(
    HEADING,
    () => `${HEADING}\n## [${version}] - ${date}\n\n${recordLine(release)}\n`,
  );
}
