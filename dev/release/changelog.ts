const HEADING = '## [Unreleased]\n';

/** The first lines of the entries below Unreleased. */
export function unreleasedEntries(changelog: string): readonly string[] {
  const [, section = ''] = changelog.split(HEADING);
  return section.split(/^## /m)[0]?.match(/^- .*$/gm) ?? [];
}

/**
 * Gives the section Unreleased a version, and starts a new one.
 * @param date Day of the release, such as `2026-01-31`.
 */
export function releaseEntries(changelog: string, version: string, date: string): string {
  return changelog.replace(HEADING, `${HEADING}\n## [${version}] - ${date}\n`);
}
