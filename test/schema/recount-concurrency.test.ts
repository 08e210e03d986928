import { expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile, withoutTriggers } from '../support/databases/test-database.ts';
import { createDirectory, createMount, deleteNode, foldAll } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();

test('a recount waits for a concurrent removal of tombstones, and adds no totals for them', async () => {
  const mount = await createMount(database());
  const key = await keyOf(database(), mount.id);
  const ids: string[] = [];
  for (const name of ['a', 'b', 'c']) ids.push(await createDirectory(database(), mount, mount.rootId, name));
  const [removed, kept, live] = ids;
  for (const id of [removed, kept]) await deleteNode(database(), id ?? '');
  await foldAll(database());
  const [owner, operator] = [await database().connect(), await database().connect()];
  await withoutTriggers(database(), (client) =>
    client.query('delete from filestore.rollups where node_id = any($1)', [ids]),
  );

  await owner.query('begin');
  await owner.query('delete from filestore.nodes where id = $1', [removed]);
  const recount = await sendAndBlock(operator, 'select filestore.recount_rollups($1) as wrong', [key]);
  expect(recount.waits).toBe(true);
  await owner.query('commit');
  expect(await recount.outcome).toMatchObject({ ok: true });
  expect(
    await database().query('select node_id from filestore.rollups where node_id = any($1) order by node_id', [
      ids,
    ]),
  ).toEqual([{ node_id: kept }, { node_id: live }]);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});
