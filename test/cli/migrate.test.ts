import { expect, test } from 'vitest';
import { runCli } from '../support/command-line/command-line.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';

const database = databaseForEachTest('empty');

const migrate = () => runCli(['migrate'], { env: { DATABASE_URL: database().url } });

test('prints each migration with its time, and a summary', async () => {
  const { exitCode, stdout, stderr } = await migrate();
  // A busy machine takes longer than a second, and then the progress of index builds is printed.
  const unexpected = stderr.split('\n').filter((line) => !/^(\S+\.sql: running for .*)?$/.test(line));
  expect({ exitCode, unexpected }).toEqual({ exitCode: 0, unexpected: [] });
  const { length } = committedMigrations();
  expect(stdout).toMatch(new RegExp(`PostgreSQL \\d+.*: ${length} migrations to apply\n`));
  expect([...stdout.matchAll(/^OK {2}(\S+) {2}\(\d+ ms\)$/gm)].map(([, filename]) => filename)).toEqual(
    committedMigrations(),
  );
  expect(stdout).toMatch(
    new RegExp(`Done: applied ${length} migrations, 0 applied earlier \\(\\d+ ms\\)\n$`),
  );
});

test('run again does nothing', async () => {
  await migrate();
  const before = await database().query(
    'select hash, date from graphile_migrate.migrations order by filename',
  );
  const { exitCode, stdout } = await migrate();
  expect(exitCode).toBe(0);
  expect(stdout).toContain(`Up to date: ${committedMigrations().length} migrations applied earlier`);
  expect(
    await database().query('select hash, date from graphile_migrate.migrations order by filename'),
  ).toEqual(before);
});

test.each(['drop schema graphile_migrate cascade', 'truncate graphile_migrate.migrations'])(
  'run after the bookkeeping was lost (%s) keeps every row and rule',
  async (loss) => {
    await migrate();
    const mount = await createMount(database());
    await createNode(database(), mount, mount.rootId, 'kept.txt');
    await database().query(loss);
    const { exitCode, stdout } = await migrate();
    expect(exitCode).toBe(0);
    expect(stdout).toContain(`applied ${committedMigrations().length} migrations`);
    expect(await database().query('select path, version from filestore.nodes order by path')).toEqual([
      { path: '', version: 1 },
      { path: 'kept.txt', version: 1 },
    ]);
    await expect(createNode(database(), mount, mount.rootId, 'kept.txt')).rejects.toMatchObject({
      code: '23505',
    });
    await expect(createNode(database(), mount, mount.rootId, '..')).rejects.toMatchObject({ code: '23514' });
  },
);

test('leaves the tables that the service needs', async () => {
  await migrate();
  const tables = await database().query(
    "select table_name from information_schema.tables where table_schema = 'filestore'",
  );
  expect(tables.map(({ table_name }) => table_name)).toEqual(
    expect.arrayContaining([
      'backend_mounts',
      'journal_entries',
      'nodes',
      'rollups',
      'snapshots',
      'view_filestore_active_nodes',
    ]),
  );
});

test('status reports pending with exit code 3 and current with 0, and changes nothing', async () => {
  const status = () => runCli(['status'], { env: { DATABASE_URL: database().url } });
  const before = await status();
  expect(before.exitCode).toBe(3);
  const { length } = committedMigrations();
  expect(before.stdout).toContain(
    `empty\n0 migrations applied, ${length} pending\nPENDING  ${committedMigrations()[0]}`,
  );
  expect(await one(database(), "select to_regnamespace('graphile_migrate') as schema")).toEqual({
    schema: null,
  });
  await migrate();
  expect(await status()).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining(`${length} migrations applied, 0 pending`),
  });
});
