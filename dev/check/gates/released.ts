import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseMigrationText } from '../../../src/graphile/migration-text.ts';
import type { Problem } from '../../sources/problem.ts';
import {
  lastVersion,
  RELEASES,
  type ReleasedMigration,
  readReleases,
  releasedMigrations,
} from '../../sources/releases.ts';
import { COMMITTED, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type Gate, judge, notRun } from '../gate.ts';

export const released: Gate<Sources> = {
  name: 'released',
  proves: `the migrations of each release in ${RELEASES} are there, in their order, and unchanged`,
  async evaluate({ root, committed }) {
    const releases = await readReleases(root);
    const { version } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8'));
    if (version !== lastVersion(releases)) {
      const what = `ends with ${lastVersion(releases)}, but package.json has version ${version}`;
      const remedy = 'Restore both files: only "npm version" changes them.';
      return judge([{ file: RELEASES, line: null, what, remedy }]);
    }
    const frozen = releasedMigrations(releases);
    if (frozen.length === 0) return notRun(`there is no release yet in ${RELEASES}`);
    // A changed file gives those after it other hashes too, and a new one other places, so the first problem says it all.
    const first = frozen
      .flatMap((migration, index) => problemOf(migration, committed, index) ?? [])
      .slice(0, 1);
    return judge(first);
  },
};

function problemOf(
  { name, version, hash }: ReleasedMigration,
  committed: readonly SqlSource[],
  index: number,
): Problem | undefined {
  const file = `${COMMITTED}/${name}`;
  const found = committed.find((source) => source.file === file);
  const other = committed[index];
  if (found === undefined) return frozen(file, null, `was removed or renamed since ${version}`);
  if (found !== other) return frozen(other?.file ?? file, null, `was added before ${name} of ${version}`);
  if (parseMigrationText(found.text).headers.get('Hash') === hash) return undefined;
  const line = found.text.split('\n').findIndex((text) => text.startsWith('--! Hash:')) + 1;
  return frozen(file, Math.max(line, 1), `or a file before it was changed since ${version}`);
}

function frozen(file: string, line: number | null, what: string): Problem {
  return {
    file,
    line,
    what: `${what}, but databases have the released files`,
    remedy: 'Restore the released files, and write the change as a new migration.',
  };
}
