import { expect, test } from 'vitest';
import { runCli } from '../support/cli.ts';
import { databaseForEachTest } from '../support/database.ts';
import { createMount, createNode, one } from '../support/tree.ts';

const database = databaseForEachTest('empty');

const migrate = () => runCli(['migrate'], { env: { DATABASE_URL: database().url } });

test('says each migration with its time, and a summary', async () => {
  const { exitCode, stdout, stderr } = await migrate();
  expect({ exitCode, stderr }).toEqual({ exitCode: 0, stderr: '' });
  expect(stdout).toMatch(/PostgreSQL \d+.*: 2 migrations to apply\n/);
  expect(stdout).toMatch(
    /OK {2}000001-[a-z-]+\.sql {2}\(\d+ ms\)\nOK {2}000002-[a-z-]+\.sql {2}\(\d+ ms\)\n/,
  );
  expect(stdout).toMatch(/Done: applied 2 migrations, 0 applied earlier \(\d+ ms\)\n$/);
});

test('run again does nothing', async () => {
  await migrate();
  const before = await database().query(
    'select hash, date from graphile_migrate.migrations order by filename',
  );
  const { exitCode, stdout } = await migrate();
  expect(exitCode).toBe(0);
  expect(stdout).toMatch(/Up to date: 2 migrations applied earlier/);
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
    expect(stdout).toMatch(/applied 2 migrations/);
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
    "select table_name from information_schema.tables where table_schema = 'filestore' order by table_name",
  );
  expect(tables.map(({ table_name }) => table_name)).toEqual([
    'backend_mounts',
    'journal_entries',
    'nodes',
    'rollups',
    'snapshots',
    'view_filestore_active_nodes',
  ]);
});

test('status says pending with exit code 3, and current with 0, and changes nothing', async () => {
  const status = () => runCli(['status'], { env: { DATABASE_URL: database().url } });
  const before = await status();
  expect(before.exitCode).toBe(3);
  expect(before.stdout).toMatch(/empty\n0 migrations applied, 2 pending\nPENDING {2}000001-/);
  expect(await one(database(), "select to_regnamespace('graphile_migrate') as schema")).toEqual({
    schema: null,
  });
  await migrate();
  expect(await status()).toMatchObject({
    exitCode: 0,
    stdout: expect.stringContaining('2 migrations applied, 0 pending'),
  });
});
