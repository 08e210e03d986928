import { expect, test } from 'vitest';
import { runCli } from '../support/command-line/command-line.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';

const PROCESSES = 20;
const database = databaseForEachTest('empty');

test('twenty processes at once all succeed, each migration is applied by one of them, and no session is left', async () => {
  const files = committedMigrations();
  const results = await Promise.all(
    Array.from({ length: PROCESSES }, () =>
      runCli(['migrate', '--json'], { env: { DATABASE_URL: database().url } }),
    ),
  );
  expect(results.map(({ exitCode, output }) => (exitCode === 0 ? '' : output))).toEqual(
    results.map(() => ''),
  );
  const reports = results.map(({ stdout }) => JSON.parse(stdout).report);
  expect(
    reports.flatMap(({ applied }) => applied.map(({ filename }: { filename: string }) => filename)).sort(),
  ).toEqual(files);
  for (const { applied, alreadyApplied } of reports)
    expect(applied.length + alreadyApplied).toBe(files.length);
  const recorded = await database().query(
    'select filename from graphile_migrate.migrations order by filename',
  );
  expect(recorded.map(({ filename }) => filename)).toEqual(
    files.map((file) => `${migrationNumber(file)}.sql`),
  );
  const left = await database().query(
    `select application_name from pg_stat_activity
     where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'`,
  );
  expect(left).toEqual([]);
}, 180_000);
