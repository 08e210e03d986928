import { isMigrationFile } from '../../src/graphile/migration-text.ts';
import type { ChangelogRelease } from './changelog.ts';
import { recordLine } from './changelog.ts';
import { lastVersion, type Release, releasedMigrations } from './releases.ts';

const VERSION = /^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$/;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** Where else a release is written down. */
export interface Witnesses {
  /** Version of package.json. */
  readonly version: string;
  readonly changelog: readonly ChangelogRelease[];
  /** The records of tagged releases, by tag. */
  readonly tagged: ReadonlyMap<string, readonly Release[]>;
}

/** What is wrong with a record, in itself and by what else there is of each release. Each continues its file's name. */
export function recordProblems(releases: readonly Release[], witnesses: Witnesses): readonly string[] {
  return [
    ...releases.flatMap((release, index) => releaseProblems(release, releases[index - 1])),
    ...migrationProblems(releases),
    ...versionProblems(releases, witnesses.version),
    ...changelogProblems(releases, witnesses.changelog),
    ...tagProblems(releases, witnesses.tagged),
  ];
}

function releaseProblems({ version, date, migrations }: Release, before: Release | undefined) {
  const problems: string[] = [];
  if (!VERSION.test(version)) problems.push(`has ${version}, which is no version`);
  else if (before !== undefined && VERSION.test(before.version) && !isLater(version, before.version)) {
    problems.push(`has ${version} after ${before.version}, which is not earlier`);
  }
  if (!isDay(date)) problems.push(`has ${date} for ${version}, which is no day`);
  else if (before !== undefined && date < before.date) {
    problems.push(`has ${version} of ${date} after ${before.version} of ${before.date}`);
  }
  if (before === undefined && Object.keys(migrations).length === 0) {
    problems.push(`has no migration in ${version}, the first release`);
  }
  return problems;
}

/** Released files are numbered from 1 without a gap, across all releases. */
function migrationProblems(releases: readonly Release[]): readonly string[] {
  return releasedMigrations(releases)
    .flatMap(({ version, name, digest }, index) => {
      const number = index + 1;
      if (!isMigrationFile(name) || Number.parseInt(name, 10) !== number) {
        return [`has ${name} of ${version} at the place of migration ${number}`];
      }
      return DIGEST.test(digest) ? [] : [`has no digest for ${name} of ${version}`];
    })
    .slice(0, 1);
}

function versionProblems(releases: readonly Release[], version: string): readonly string[] {
  const last = lastVersion(releases);
  return version === last ? [] : [`ends with ${last}, but package.json has version ${version}`];
}

function changelogProblems(releases: readonly Release[], changelog: readonly ChangelogRelease[]) {
  const found = changelog.map(({ version }) => version).join(', ');
  const expected = releases.map(({ version }) => version).join(', ');
  if (found !== expected) {
    return [`has the releases ${expected || '(none)'}, but CHANGELOG.md has ${found || 'none'}`];
  }
  return releases.flatMap((release, index) => {
    const { date, record } = changelog[index] ?? {};
    if (date === release.date && record === recordLine(release)) return [];
    return [`has another record of ${release.version} than CHANGELOG.md`];
  });
}

function tagProblems(releases: readonly Release[], tagged: Witnesses['tagged']): readonly string[] {
  return [...tagged].flatMap(([tag, then]) => {
    const now = releases.slice(0, then.length);
    return JSON.stringify(now) === JSON.stringify(then)
      ? []
      : [`has other releases up to the tag ${tag} than that tag has`];
  });
}

function isDay(date: string): boolean {
  return /^\d{4}-\d\d-\d\d$/.test(date) && new Date(`${date}T00:00:00Z`).toJSON()?.slice(0, 10) === date;
}

/** Whether a version comes after another one, by Semantic Versioning. */
function isLater(version: string, other: string): boolean {
  const [ours = [], theirs = []] = [version, other].map((text) => VERSION.exec(text)?.slice(1));
  for (let part = 0; part < 3; part += 1) {
    const difference = Number(ours[part]) - Number(theirs[part]);
    if (difference !== 0) return difference > 0;
  }
  const [mine, its] = [ours[3], theirs[3]];
  if (mine === undefined || its === undefined) return mine === undefined && its !== undefined;
  return comparePreReleases(mine.split('.'), its.split('.')) > 0;
}

function comparePreReleases(ours: readonly string[], theirs: readonly string[]): number {
  for (const [index, mine] of ours.entries()) {
    const its = theirs[index];
    if (its === undefined) return 1;
    if (mine === its) continue;
    const [isNumber, isOtherNumber] = [mine, its].map((text) => /^\d+$/.test(text));
    if (isNumber && isOtherNumber) return Number(mine) - Number(its);
    if (isNumber !== isOtherNumber) return isNumber ? -1 : 1;
    return mine < its ? -1 : 1;
  }
  return ours.length - theirs.length;
}
