import type pg from 'pg';
import { type CatalogDifference, compareModels } from '../../../src/catalog/compare.ts';
import { describeObject } from '../../../src/catalog/model.ts';
import { readCatalog } from '../../../src/catalog/read.ts';
import type { Problem } from '../../sources/problem.ts';
import { migrationsOf, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';
import { applyAll } from '../run-statements.ts';

const REMEDY =
  'Write the migration so that it can run again: "if not exists", "create or replace", "drop … if exists" before "create", guarded constraints, a name for every index.';
/** With this comment, a migration says that those before it cannot be replayed. The gate then replays from it on. */
const NO_REPLAY = /^-- No replay from before: \S/m;
const REPLAY_REMEDY =
  'A database that lost its history could no longer be migrated. If you accept that, write "-- No replay from before: why" into the later migration.';

/** Needs an empty database. */
export const repeatable: Gate<DatabaseSubject> = {
  name: 'repeatable',
  proves: 'applying each migration twice, and all of them again without the history, changes nothing',
  async evaluate({ sources, client }) {
    const migrations = migrationsOf(sources);
    for (const migration of migrations) {
      const failures = await applyAll(client, [migration]);
      if (failures.length > 0) return judge(failures);
      const problems = await applyAgain(client, sources, [migration]);
      if (problems.length > 0) return judge(problems);
    }
    const start = migrations.findLastIndex(({ text }) => NO_REPLAY.test(text));
    const problems = await applyAgain(client, sources, migrations.slice(Math.max(start, 0)));
    return judge(
      problems.map((problem) => ({
        ...problem,
        what: `after later migrations, ${problem.what}`,
        remedy: REPLAY_REMEDY,
      })),
    );
  },
};

/** Applies migrations to a database that has them already, and reports the changes. */
export async function applyAgain(
  client: pg.Client,
  sources: Sources,
  migrations: readonly SqlSource[],
): Promise<readonly Problem[]> {
  const once = await readCatalog(client);
  const failures = await applyAll(client, migrations);
  if (failures.length > 0) {
    return failures.map((problem) => ({
      ...problem,
      what: `at its second run, ${problem.what}`,
      remedy: REMEDY,
    }));
  }
  const { differences } = compareModels(once, await readCatalog(client));
  const [only, ...others] = migrations;
  return differences.map((difference) => {
    const { object, owner } = difference;
    const names = owner === null ? [object.name] : [owner.name, object.name];
    return {
      ...(only !== undefined && others.length === 0
        ? { file: only.file, line: null }
        : locate(sources, object.kind, ...names)),
      what: `${describeObject(object, owner)} ${describeChange(difference)}`,
      remedy: REMEDY,
    };
  });
}

function describeChange(difference: CatalogDifference): string {
  switch (difference.change) {
    case 'missing':
      return 'is missing after the second time';
    case 'extra':
      return `exists only after the second time: ${difference.actual}`;
    case 'changed':
      return `is "${difference.expected}" after the first time, "${difference.actual}" after the second`;
  }
}
