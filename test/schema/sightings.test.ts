import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, createNode, foldAll, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let file: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(database());
  file = await createNode(database(), mount, mount.rootId, 'f');
});

const RECORD = 'select filestore.record_sightings($1, $2, $3) as recorded';
const record = async (ids: readonly string[], seen: string | null, reconciled: string | null = null) =>
  (await one(service, RECORD, [ids, seen, reconciled])).recorded;

const sightingOf = async (id: string) =>
  (
    await database().query(
      'select last_seen_at, last_reconciled_at from filestore.node_sightings where node_id = $1',
      [id],
    )
  )[0];

const [MAY, JUNE, JULY] = ['2024-05-01T00:00:00Z', '2024-06-01T00:00:00Z', '2024-07-01T00:00:00Z'];

describe('record_sightings', () => {
  test('keeps the first sighting and each later one', async () => {
    expect(await sightingOf(file)).toBeUndefined();
    expect(await record([file], MAY)).toBe(1);
    expect(await sightingOf(file)).toEqual({ last_seen_at: new Date(MAY), last_reconciled_at: null });
    expect(await record([file], JUNE, JUNE)).toBe(1);
    expect(await sightingOf(file)).toEqual({
      last_seen_at: new Date(JUNE),
      last_reconciled_at: new Date(JUNE),
    });
  });

  test('ignores an earlier moment, and keeps a moment that is not given', async () => {
    await record([file], JULY, JUNE);
    await record([file], JUNE, MAY);
    await record([file], JUNE);
    expect(await sightingOf(file)).toEqual({
      last_seen_at: new Date(JULY),
      last_reconciled_at: new Date(JUNE),
    });
    await record([file], null, JULY);
    expect(await sightingOf(file)).toMatchObject({ last_reconciled_at: new Date(JULY) });
  });

  test('uses the current time when no moment is given', async () => {
    await service.query('select filestore.record_sightings(array[$1::bigint])', [file]);
    expect((await sightingOf(file))?.last_seen_at.getTime()).toBeGreaterThan(Date.now() - 60_000);
  });

  test('returns the number of nodes that exist, each counted once', async () => {
    const other = await createNode(database(), mount, mount.rootId, 'g');
    expect(await record([file, '999999999', other, file], MAY)).toBe(2);
    expect(await record(['999999999'], MAY)).toBe(0);
    expect(await record([], MAY)).toBe(0);
  });

  test.each(['tomorrow', 'infinity', '-infinity', '0001-01-01 BC'])('refuses %s', async (moment) => {
    const refused = { code: 'FS422', constraint: 'node_sightings_moment_check', hint: expect.any(String) };
    await expect(record([file], moment)).rejects.toMatchObject(refused);
    await expect(record([file], MAY, moment)).rejects.toMatchObject(refused);
    expect(await sightingOf(file)).toBeUndefined();
  });

  test('refuses a call without any moment', async () => {
    await expect(
      database().query('select filestore.record_sightings(array[$1::bigint], null)', [file]),
    ).rejects.toMatchObject({ code: 'FS422', constraint: 'node_sightings_moment_check' });
    expect(await sightingOf(file)).toBeUndefined();
  });

  test('changes no version and writes no history', async () => {
    const node = () => one(database(), 'select * from filestore.nodes where id = $1', [file]);
    const before = await node();
    await record([file], MAY);
    await record([file], JUNE, JUNE);
    expect(await node()).toEqual(before);
    expect(await database().query('select from filestore.snapshots where id = $1', [file])).toEqual([]);
  });

  test('is in the view of active nodes, which also has nodes that were never seen', async () => {
    const view = () =>
      one(
        service,
        'select last_seen_at, last_reconciled_at from filestore.view_filestore_active_nodes where id = $1',
        [file],
      );
    expect(await view()).toEqual({ last_seen_at: null, last_reconciled_at: null });
    await record([file], MAY);
    expect(await view()).toEqual({ last_seen_at: new Date(MAY), last_reconciled_at: null });
  });
});

test('two passes over the same nodes in opposite order do not deadlock', async () => {
  const ids: string[] = [];
  for (let index = 0; index < 9; index += 1)
    ids.push(await createNode(database(), mount, mount.rootId, `n${index}`));
  await record(ids, MAY);
  const [holder, other] = [await database().connect(), await connectAs('service')];
  await holder.query('begin');
  await holder.query('select from filestore.node_sightings where node_id = $1 for update', [ids[4]]);
  const upwards = await sendAndBlock(service, RECORD, [ids, JUNE, null]);
  const downwards = await sendAndBlock(other, RECORD, [ids.toReversed(), JULY, null]);
  expect([upwards.waits, downwards.waits]).toEqual([true, true]);
  await holder.query('commit');
  expect(await upwards.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 9 }] } });
  expect(await downwards.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 9 }] } });
});

test('a purge and a pass over the same tombstones do not deadlock', async () => {
  const ids: string[] = [];
  for (let index = 0; index < 9; index += 1)
    ids.push(await createNode(database(), mount, mount.rootId, `n${index}`));
  // Sightings are stored in the opposite order of their ids.
  for (const id of ids.toReversed()) await record([id], MAY);
  for (const id of ids) await service.query('select filestore.delete_node($1)', [id]);
  await foldAll(database());
  const [holder, operator] = [await database().connect(), await connectAs('operator')];
  await holder.query('begin');
  await holder.query('select from filestore.node_sightings where node_id = $1 for update', [ids[4]]);
  const pass = await sendAndBlock(service, RECORD, [ids, JUNE, null]);
  const purge = await sendAndBlock(operator, "select filestore.purge_deleted('0') as purged");
  expect([pass.waits, purge.waits]).toEqual([true, true]);
  await holder.query('commit');
  expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 9 }] } });
  expect(await purge.outcome).toMatchObject({ ok: true });
  for (const id of ids) expect(await sightingOf(id)).toBeUndefined();
});

test('a pass over nodes that were seen before makes HOT updates', async () => {
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'n' || g, 'file' from generate_series(1, 5000) g`,
    [mount.id, mount.rootId],
  );
  const ids = (
    await database().query('select id from filestore.nodes where parent_id = $1 order by id', [mount.rootId])
  ).map(({ id }) => id);
  await record(ids, MAY);
  const updates = async () => {
    await service.query('select pg_stat_force_next_flush()');
    const row = await one(
      database(),
      "select n_tup_upd as all, n_tup_hot_upd as hot from pg_stat_user_tables where relname = 'node_sightings'",
    );
    return { all: Number(row.all), hot: Number(row.hot) };
  };
  const before = await updates();
  expect(await record(ids, JUNE)).toBe(5001);
  const after = await updates();
  expect(after.all - before.all).toBe(5001);
  expect((after.hot - before.hot) / (after.all - before.all)).toBeGreaterThan(0.95);
});
