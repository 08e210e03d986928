import pg from 'pg';
import { type CatalogDifference, compareModels } from '../../../src/catalog/compare.ts';
import { describeObject } from '../../../src/catalog/model.ts';
import { readCatalog } from '../../../src/catalog/read.ts';
import type { Problem } from '../../sources/problem.ts';
import { expandIncludes, isSource, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { fixtureOf, locate } from '../locate.ts';
import { describeFailure, withRollback } from '../run-statements.ts';

// Repeatedly drops objects that nothing else depends on. Others, such as a function that a check calls, are replaced
// by their file.
const DROP_REPLACEABLE = `
do $$
declare
  statement text;
  dropped   boolean := true;
begin
  while dropped loop
    dropped := false;
    for statement in
      select format('drop trigger %I on %s', t.tgname, t.tgrelid::regclass)
      from pg_trigger t join pg_class c on c.oid = t.tgrelid
      where c.relnamespace = 'filestore'::regnamespace and not t.tgisinternal
      union all
      select format('drop %s %s', case relkind when 'm' then 'materialized view' else 'view' end, oid::regclass)
      from pg_class where relnamespace = 'filestore'::regnamespace and relkind in ('v', 'm')
      union all
      select format('drop routine %s', oid::regprocedure)
      from pg_proc where pronamespace = 'filestore'::regnamespace
    loop
      begin
        execute statement;
        dropped := true;
      exception
        when dependent_objects_still_exist then null;
      end;
    end loop;
  end loop;
end
$$`;

/** Needs a database with all migrations applied, and leaves it unchanged. */
export const definitions: Gate<DatabaseSubject> = {
  name: 'definitions',
  proves: 'every view, function and trigger in the database matches its file in migrations/fixtures',
  async evaluate({ sources, client }) {
    const live = await readCatalog(client);
    return withRollback(client, async () => {
      await client.query(DROP_REPLACEABLE);
      const failures = await makeAgain(client, sources);
      const { differences } = compareModels(await readCatalog(client), live);
      const broken = new Set(failures.map(({ file }) => file));
      return judge([
        ...failures,
        ...differences
          .map((difference) => describe(difference, sources))
          // The failure of the file is already reported.
          .filter(({ file }) => !broken.has(file)),
      ]);
    });
  },
};

/** Runs every file, and repeats those that need another file's object until no more of them succeed. */
async function makeAgain(client: pg.Client, sources: Sources): Promise<readonly Problem[]> {
  const fixtures = sources.fixtures.map((fixture) =>
    expandIncludes(fixture, sources.fixtures, [fixture.file]),
  );
  const problems = fixtures.filter((fixture): fixture is Problem => !isSource(fixture));
  let left = fixtures.filter(isSource);
  for (;;) {
    const failed: { readonly fixture: SqlSource; readonly problem: Problem }[] = [];
    for (const fixture of left) {
      const problem = await tryFixture(client, fixture);
      if (problem !== undefined) failed.push({ fixture, problem });
    }
    if (failed.length === 0) return problems;
    if (failed.length === left.length) return [...problems, ...failed.map(({ problem }) => problem)];
    left = failed.map(({ fixture }) => fixture);
  }
}

async function tryFixture(client: pg.Client, fixture: SqlSource): Promise<Problem | undefined> {
  await client.query('savepoint fixture');
  try {
    await client.query(fixture.text);
    await client.query('release fixture');
    return undefined;
  } catch (error) {
    if (!(error instanceof pg.DatabaseError)) throw error;
    await client.query('rollback to fixture');
    return describeFailure(error, { text: fixture.text, line: 1 }, fixture);
  }
}

function describe(difference: CatalogDifference, sources: Sources): Problem {
  const { object, owner } = difference;
  // The columns and privileges of a view belong to its file. A trigger has a separate file.
  const definer = object.kind === 'trigger' ? object : (owner ?? object);
  const file = fixtureOf(definer.kind, definer.name);
  const known = sources.fixtures.some((fixture) => fixture.file === file);
  const what = describeObject(object, owner);
  const place = known ? { file: file ?? '', line: 1 } : locate(sources, definer.kind, definer.name);
  const include = `write "--!include" with its name in migrations/current.sql`;
  if (!known) {
    const remedy = `Move its definition to ${file ?? 'a file in migrations/fixtures'}, then ${include}.`;
    return { ...place, what: `${what} has no file in migrations/fixtures`, remedy };
  }
  // The files are the first side of the comparison.
  const how = {
    missing: 'is in the file, but no migration creates it',
    extra: 'is created by the migrations, but not by the file',
    changed: 'differs between the file and the migrations',
  }[difference.change];
  return { ...place, what: `${what} ${how}`, remedy: `Correct the file if it is wrong, then ${include}.` };
}
