import { expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { FILES_IN_DIRECTORY, mountsToErase } from '../support/rows/mounts-to-erase.ts';
import { createMount } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();
const { erased, other, key, rowsOf, leftovers, journal, problems, deactivate, erase } =
  mountsToErase(database);

test.each([
  ['tombstones', 'not live and path', 'a/gone/f9'],
  ['live nodes', 'live and path', 'a/b/f15'],
])('that is killed in the middle of its %s continues when it is called again', async (_, condition, path) => {
  const [rest, log] = [await rowsOf(other()), await journal()];
  const total = Number.parseInt(String((await rowsOf(erased())).nodes), 10);
  await deactivate();
  const [holder, eraser] = [await database().connect(), await database().connect()];
  await holder.query('begin');
  await holder.query(
    `select from filestore.nodes where backend_mount_id = $1 and ${condition} = $2 for update`,
    [erased().id, path],
  );
  const { rows } = await eraser.query('select pg_backend_pid() as pid');
  const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 3)', [key()]);
  expect(erasing.waits).toBe(true);
  await database().query('select pg_terminate_backend($1)', [rows[0].pid]);
  expect(await erasing.outcome).toMatchObject({ ok: false, error: { code: '57P01' } });
  await holder.query('rollback');

  const left = Number.parseInt(String((await rowsOf(erased())).nodes), 10);
  expect(left).toBeGreaterThan(1);
  expect(left).toBeLessThan(total);
  expect(await problems()).toEqual([]);
  expect(await leftovers()).toEqual([]);

  await erase(database());
  expect(Object.values(await rowsOf(erased()))).toEqual(Array(6).fill('0 '));
  expect(await rowsOf(other())).toEqual(rest);
  expect(await journal()).toEqual(log);
  expect(await problems()).toEqual([]);
});

test('a create during the last batch waits, and is refused because its directory is gone', async () => {
  await deactivate();
  const [holder, eraser, writer] = [
    await database().connect(),
    await database().connect(),
    await database().connect(),
  ];
  await holder.query('begin');
  await holder.query(
    "select from filestore.nodes where backend_mount_id = $1 and live and path = 'a/b/f1' for update",
    [erased().id],
  );
  const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 1000)', [key()]);
  const creating = await sendAndBlock(
    writer,
    "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values ($1, $2, 'late', 'file')",
    [erased().id, erased().rootId],
  );
  await holder.query('rollback');
  expect(erasing.waits).toBe(true);
  expect(creating.waits).toBe(true);
  expect(await erasing.outcome).toMatchObject({ ok: true });
  expect(await creating.outcome).toMatchObject({
    ok: false,
    error: { constraint: 'nodes_parent_missing' },
  });
  expect(await problems()).toEqual([]);
});

test.each([
  ['erase_mount', 'call filestore.erase_mount($1)'],
  ['start_move', 'select filestore.start_move($1, 7)'],
])('%s is refused when a mount is deleted while it waits', async (_, text) => {
  await database().query('call filestore.prepare_moves(true)');
  const deleted = await keyOf(database(), (await createMount(database())).id);
  const [operator, owner] = [await database().connect(), await database().connect()];
  await operator.query('begin');
  await operator.query('select filestore.delete_mount($1)', [deleted]);
  const waiting = await sendAndBlock(owner, text, [deleted]);
  expect(waiting.waits).toBe(true);
  await operator.query('commit');
  expect(await waiting.outcome).toMatchObject({
    ok: false,
    error: { code: 'FS404', constraint: 'backend_mounts_missing' },
  });
  await database().query('call filestore.prepare_moves(false)');
});

test('waits for a writer that holds the tree before it removes the first nodes', async () => {
  await deactivate();
  const { nodes } = await rowsOf(erased());
  const [holder, eraser] = [await database().connect(), await database().connect()];
  await holder.query('begin');
  await holder.query('select filestore.lock_tree($1, false)', [erased().id]);
  const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 7)', [key()]);
  expect(erasing.waits).toBe(true);
  expect((await rowsOf(erased())).nodes).toEqual(nodes);
  await holder.query('rollback');
  expect(await erasing.outcome).toMatchObject({ ok: true });
  expect(await problems()).toEqual([]);
});

test('delete_mount waits for it, and does not deadlock with it', async () => {
  await deactivate();
  const [holder, eraser, deleter] = [
    await database().connect(),
    await database().connect(),
    await database().connect(),
  ];
  await holder.query('begin');
  await holder.query('select filestore.lock_tree($1, false)', [erased().id]);
  const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 1000)', [key()]);
  const deleting = await sendAndBlock(deleter, 'select filestore.delete_mount($1)', [key()]);
  await holder.query('rollback');
  expect([erasing.waits, deleting.waits]).toEqual([true, true]);
  expect([await erasing.outcome, await deleting.outcome]).toMatchObject([
    { ok: true },
    { ok: false, error: { constraint: 'backend_mounts_missing' } },
  ]);
  expect(Object.values(await rowsOf(erased()))).toEqual(Array(6).fill('0 '));
  expect(await problems()).toEqual([]);
});

test('its batches grow while files are created, also when other nodes came from a database with a higher number', async () => {
  await database().query(
    `insert into filestore.nodes (id, backend_mount_id, parent_id, name, kind)
     overriding system value values (5::bigint << 40, $1, $2, 'moved', 'file')`,
    [other().id, other().rootId],
  );
  await deactivate();
  const [holder, eraser] = [await database().connect(), await database().connect()];
  const batches: string[] = [];
  eraser.on('notice', ({ message }) => batches.push(String(message)));
  await holder.query('begin');
  await holder.query('select filestore.lock_tree($1, false)', [erased().id]);
  // The tombstones are one batch.
  const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, $2)', [
    key(),
    FILES_IN_DIRECTORY + 1,
  ]);
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'zz' || g, 'file' from generate_series(1, $3) g`,
    [erased().id, erased().rootId, 2 * FILES_IN_DIRECTORY],
  );
  await holder.query('rollback');
  expect(await erasing.outcome).toMatchObject({ ok: true });
  expect(batches.slice(0, 3)).toEqual([
    `${FILES_IN_DIRECTORY + 1} nodes erased`,
    `${FILES_IN_DIRECTORY + 1} nodes erased`,
    `${2 * (FILES_IN_DIRECTORY + 1)} nodes erased`,
  ]);
});
