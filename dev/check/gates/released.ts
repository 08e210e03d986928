import { execFileSync } from 'node:child_process';
import { readFile, realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfThere } from '../../read-if-there.ts';
import { CHANGELOG, changelogReleases } from '../../sources/changelog.ts';
import type { Problem } from '../../sources/problem.ts';
import { recordProblems } from '../../sources/release-record.ts';
import {
  digestOfFile,
  parseRecord,
  RELEASES,
  type Release,
  type ReleasedMigration,
  readRecord,
  releasedMigrations,
} from '../../sources/releases.ts';
import { COMMITTED, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type Gate, judge, notRun } from '../gate.ts';

export const released: Gate<Sources> = {
  name: 'released',
  proves: `${RELEASES} agrees with CHANGELOG.md, package.json and the tags, and each migration in it is unchanged`,
  async evaluate({ root, committed }) {
    const record = await readRecord(root);
    if ('broken' in record) return judge([wrongRecord(record.broken)]);
    const { releases } = record;
    const problems = recordProblems(releases, {
      version: JSON.parse(await readFile(join(root, 'package.json'), 'utf8')).version,
      changelog: changelogReleases((await readIfThere(join(root, CHANGELOG))) ?? ''),
      tagged: await readTagged(root),
    });
    if (problems.length > 0) return judge(problems.map(wrongRecord));
    const frozen = releasedMigrations(releases);
    if (frozen.length === 0) return notRun(`there is no release yet in ${RELEASES}`);
    for (const [index, migration] of frozen.entries()) {
      const problem = await problemOf(root, migration, committed, index);
      // A new file gives those after it other places, so the first problem says it all.
      if (problem !== undefined) return judge([problem]);
    }
    return judge([]);
  },
};

async function problemOf(
  root: string,
  { name, version, digest }: ReleasedMigration,
  committed: readonly SqlSource[],
  index: number,
): Promise<Problem | undefined> {
  const file = `${COMMITTED}/${name}`;
  const found = committed.find((source) => source.file === file);
  const other = committed[index];
  if (found === undefined) return frozen(file, `was removed or renamed since ${version}`);
  if (found !== other) return frozen(other?.file ?? file, `was added before ${name} of ${version}`);
  if ((await digestOfFile(root, name)) === digest) return undefined;
  return frozen(file, `was changed since ${version}`);
}

/** The records of the releases that are tagged before this commit. None without git, or in a folder of another repository. */
async function readTagged(root: string): Promise<ReadonlyMap<string, readonly Release[]>> {
  const git = (...args: readonly string[]) => {
    try {
      return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    } catch {
      return undefined;
    }
  };
  const records = new Map<string, readonly Release[]>();
  if (git('rev-parse', '--show-toplevel')?.trim() !== (await realpath(root))) return records;
  const tags = git('tag', '--list', 'v[0-9]*', '--merged', 'HEAD') ?? '';
  for (const tag of tags.split('\n').filter((line) => line !== '')) {
    const record = parseRecord(git('show', `${tag}:${RELEASES}`) ?? '');
    if ('releases' in record) records.set(tag, record.releases);
  }
  return records;
}

function wrongRecord(what: string): Problem {
  return {
    file: RELEASES,
    line: null,
    what,
    remedy:
      'Restore it, package.json and CHANGELOG.md from version control: only "npm version" changes a release.',
  };
}

function frozen(file: string, what: string): Problem {
  return {
    file,
    line: null,
    what: `${what}, but databases have the released files`,
    remedy: 'Restore the released files, and write the change as a new migration.',
  };
}
