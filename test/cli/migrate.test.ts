import { expect, test } from 'vitest';
import { runCli } from '../support/command-line/command-line.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { one } from '../support/rows/nodes.ts';

const empty = databaseForFile('empty');
const database = databaseForFile();

const { length } = committedMigrations();
const run = (command: string, url: string) => runCli([command], { env: { DATABASE_URL: url } });

test('migrate prints each migration with its time, and a summary; status reports pending and current, and changes nothing', async () => {
  const { url } = empty();
  const before = await run('status', url);
  expect(before.exitCode).toBe(3);
  expect(before.stdout).toContain(
    `empty\n0 migrations applied, ${length} pending\nPENDING  ${committedMigrations()[0]}`,
  );
  expect(await one(empty(), "select to_regnamespace('graphile_migrate') as schema")).toEqual({
    schema: null,
  });

  const { exitCode, stdout, stderr } = await run('migrate', url);
  // A busy machine takes longer than a second, and then the progress of index builds is printed.
  const unexpected = stderr.split('\n').filter((line) => !/^(\S+\.sql: running for .*)?$/.test(line));
  expect({ exitCode, unexpected }).toEqual({ exitCode: 0, unexpected: [] });
  expect(stdout).toMatch(new RegExp(`PostgreSQL \\d+.*: ${length} migrations to apply\n`));
  expect([...stdout.matchAll(/^OK {2}(\S+) {2}\(\d+ ms\)$/gm)].map(([, filename]) => filename)).toEqual(
    committedMigrations(),
  );
  expect(stdout).toMatch(
    new RegExp(`Done: applied ${length} migrations, 0 applied earlier \\(\\d+ ms\\)\n$`),
  );
  expect(await run('status', url)).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining(`${length} migrations applied, 0 pending`),
  });
});

test('migrate run again does nothing', async () => {
  const history = () =>
    database().query('select hash, date from graphile_migrate.migrations order by filename');
  const before = await history();
  const { exitCode, stdout } = await run('migrate', database().url);
  expect(exitCode).toBe(0);
  expect(stdout).toContain(`Up to date: ${length} migrations applied earlier`);
  expect(await history()).toEqual(before);
});
