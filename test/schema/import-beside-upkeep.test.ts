import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { one } from '../support/rows/nodes.ts';
import { importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const at = (month: number) => `2025-0${month}-01T00:00:00Z`;
const file = (version: number): Row => ({
  id: 10,
  path: 'f',
  kind: 'file',
  version,
  size_bytes: version,
  created_at: at(1),
  updated_at: at(version),
});
const versionOf = (version: number): Row => ({
  id: 10,
  version,
  size_bytes: version,
  updated_at: at(version),
});
const deleted = (id: number, more: Row): Row => ({
  id,
  version: 2,
  created_at: at(1),
  updated_at: at(2),
  deleted_at: at(2),
  ...more,
});

const problems = () => database().query('select * from filestore.check_integrity()');

interface Plan {
  readonly client: Client;
  /** Moves nodes, before the first batch. */
  readonly arrange: string;
  /** Takes the first batch. */
  readonly take: string;
}

/** Plans an import as the call itself does, and returns what the call does next. */
async function planImport(versions = 'null'): Promise<Plan> {
  const client = await database().connect();
  const { id } = await one(
    client,
    `select filestore.begin_import('${key}', 'old.nodes', ${versions}, null, false, 10000) as id`,
  );
  return {
    client,
    arrange: `select filestore.arrange_staged(${id})`,
    take: `select filestore.take_nodes(${id}, 1, 10000, false)`,
  };
}

describe('beside a prune, an import puts no versions back that leave a gap', () => {
  const versions = async () =>
    (
      await database().query<{ version: number }>(
        'select version from filestore.view_filestore_node_versions where id = 10 order by 1',
      )
    ).map(({ version }) => version);
  const PRUNE = "select filestore.prune_history('0', 1) as pruned";

  /** A file with versions 3 to 5, of which the next import puts 1 and 2 back. */
  beforeEach(async () => {
    await stage(database(), 'nodes', [file(5)]);
    await stage(database(), 'versions', [3, 4].map(versionOf));
    await database().query(`call filestore.import_nodes('${key}', 'old.nodes', 'old.versions')`);
    await stage(database(), 'versions', [1, 2, 3, 4].map(versionOf));
  });

  test('which the prune has removed and not committed', async () => {
    const { client: importer, take } = await planImport("'old.versions'");
    const pruner = await database().connect();
    await pruner.query('begin');
    expect(await one(pruner, PRUNE)).toEqual({ pruned: 1 });
    const taking = await sendAndBlock(importer, take);
    expect(taking.waits).toBe(true);
    await pruner.query('commit');
    expect(await taking.outcome).toMatchObject({ ok: true });
    expect(await versions()).toEqual([4, 5]);
    expect(await problems()).toEqual([]);
  });

  test('which come while the prune waits: it removes them with the others', async () => {
    const { client: importer, take } = await planImport("'old.versions'");
    const pruner = await database().connect();
    await importer.query('begin');
    await importer.query(take);
    const pruning = await sendAndBlock(pruner, PRUNE);
    expect(pruning.waits).toBe(true);
    await importer.query('commit');
    expect(await pruning.outcome).toMatchObject({ ok: true, result: { rows: [{ pruned: 3 }] } });
    expect(await versions()).toEqual([4, 5]);
    expect(await problems()).toEqual([]);
  });
});

describe('a tombstone whose directory is purged after the plan is refused, and nothing is taken', () => {
  const DIRECTORY = deleted(11, { path: 'd', kind: 'directory' });
  const LIVE = { id: 20, path: 'f', kind: 'file', version: 1, created_at: at(1), updated_at: at(1) };

  test.each([
    ['new', [DIRECTORY], ({ take }: Plan) => take],
    ['moved', [DIRECTORY, LIVE], ({ arrange }: Plan) => arrange],
  ])('which is %s', async (_, rows, statementOf) => {
    await stage(database(), 'nodes', rows);
    await database().query(`call filestore.import_nodes('${key}', 'old.nodes')`);
    await stage(database(), 'nodes', [deleted(20, { path: 'd/f', kind: 'file' })]);
    const plan = await planImport();
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    await expect(plan.client.query(statementOf(plan))).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'import_disturbed',
    });
    expect(await problems()).toEqual([]);
  });
});

test('an import ends if its mount is deleted after the plan, and leaves nothing', async () => {
  await stage(database(), 'nodes', [deleted(11, { path: 'd', kind: 'directory' })]);
  const { client, take } = await planImport();
  await database().query('select filestore.delete_mount($1)', [key]);
  await expect(client.query(take)).rejects.toMatchObject({
    code: 'FS404',
    constraint: 'backend_mounts_missing',
  });
  expect(await problems()).toEqual([]);
});

test('an import of earlier versions, which writes to no node, ends if its mount begins to move after the plan', async () => {
  await stage(database(), 'nodes', [file(5)]);
  await database().query(`call filestore.import_nodes('${key}', 'old.nodes')`);
  await stage(database(), 'versions', [3, 4].map(versionOf));
  const { client, take } = await planImport("'old.versions'");
  await database().query('update filestore.backend_mounts set held_by = 0');
  const moving = { code: 'FS409', constraint: 'backend_mounts_moving' };
  await expect(client.query(take)).rejects.toMatchObject(moving);
  await database().query('update filestore.backend_mounts set held_by = null');
  await client.query(take);
  expect(await problems()).toEqual([]);
});
