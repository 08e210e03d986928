import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let key: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(service);
  key = await keyOf(service, mount.id);
});

const UPSERT = 'select * from filestore.upsert_directory($1, $2, metadata => $3, replace_file => $4)';
const upsert = (path: string, metadata: object | null = null, replaceFile = false) =>
  one(service, UPSERT, [key, path, metadata, replaceFile]);

test('a directory is created with what is missing above it, and changed by the next call', async () => {
  const created = await upsert('a/b', { tag: 'x' });
  expect(created).toMatchObject({ path: 'a/b', kind: 'directory', metadata: { tag: 'x' } });
  expect(await upsert('/a//b/', { tag: 'y' })).toMatchObject({ id: created.id, metadata: { tag: 'y' } });
});

test('a call that changes nothing adds no version, and what is not given stays', async () => {
  const { id, version } = await upsert('a', { tag: 'x' });
  expect(await upsert('a')).toMatchObject({ id, version, metadata: { tag: 'x' } });
  const moment = new Date('2024-05-05T05:05:05.123Z');
  const changed = await one(
    service,
    'select * from filestore.upsert_directory($1, $2, last_modified_at => $3)',
    [...[key, 'a', moment]],
  );
  expect(changed).toMatchObject({ version: version + 1, metadata: { tag: 'x' }, last_modified_at: moment });
});

test('a missing directory becomes active', async () => {
  const { id } = await upsert('a');
  await service.query("update filestore.nodes set state = 'missing' where id = $1", [id]);
  expect(await upsert('a')).toMatchObject({ id, state: 'active' });
});

test('a file at the path is refused, or with replace_file deleted: the directory is a new node', async () => {
  const { id } = await one(service, "select id from filestore.upsert_file($1, 'a/f', 7)", [key]);
  await expect(upsert('a/f')).rejects.toMatchObject({
    ...refusal('FS409', '"a/f"'),
    constraint: 'nodes_file_in_the_way',
  });
  const directory = await upsert('a/f', { tag: 'x' }, true);
  expect(directory).toMatchObject({ kind: 'directory', version: expect.any(Number), metadata: { tag: 'x' } });
  expect(directory.id).not.toBe(id);
  expect(await one(service, 'select state from filestore.nodes where id = $1', [id])).toEqual({
    state: 'deleted',
  });
  expect(await upsert('a/f', null, true)).toMatchObject({ id: directory.id });
  // A file above the path is never replaced.
  await service.query("select filestore.upsert_file($1, 'a/g')", [key]);
  await expect(upsert('a/g/h', null, true)).rejects.toMatchObject({ constraint: 'nodes_file_in_the_way' });
});

test('a file that is overwritten at the same time is not replaced', async () => {
  const writer = await connectAs('service');
  await service.query("select filestore.upsert_file($1, 'f', 1)", [key]);
  await writer.query('begin');
  await writer.query("select filestore.upsert_file($1, 'f', 2)", [key]);
  const { waits, outcome } = await sendAndBlock(service, UPSERT, [key, 'f', null, true]);
  expect(waits).toBe(true);
  await writer.query('commit');
  expect(await outcome).toMatchObject({ ok: false, error: { constraint: 'nodes_stale' } });
});

test('a call that replaces a file does not deadlock with a move of the directory around it', async () => {
  const [first, last] = ['d/a', 'd/z'];
  for (const path of [first, last]) {
    await service.query('select filestore.upsert_file($1, $2, 1)', [key, path]);
  }
  const [holder, mover] = [await connectAs('service'), await connectAs('service')];
  await holder.query('begin');
  await holder.query("select from filestore.nodes where path = 'd/a' and backend_mount_id = $1 for update", [
    mount.id,
  ]);
  const move = await sendAndBlock(
    mover,
    "select filestore.move_node(n.id, new_name => 'e') from filestore.node_by_path($1, 'd') n",
    [key],
  );
  const replace = await sendAndBlock(service, UPSERT, [key, last, null, true]);
  expect([move.waits, replace.waits]).toEqual([true, true]);
  await holder.query('commit');
  expect(await move.outcome).toMatchObject({ ok: true });
  // The path that is given is that of a new directory.
  expect(await replace.outcome).toMatchObject({ ok: true, result: { rows: [{ path: last }] } });
});
