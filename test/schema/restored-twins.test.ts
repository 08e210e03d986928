import { expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

test('a tree in which a name was deleted twice is restored with the node that had the name last', async () => {
  const mount = await createMount(database());
  const directory = await createDirectory(database(), mount, mount.rootId, 'd');
  const moment = new Date();
  const deleteOne = () => database().query('select filestore.delete_batch($1, 1, $2)', [directory, moment]);
  const older = await createNode(database(), mount, mount.rootId, 'g');
  await createNode(database(), mount, directory, 'f');
  await deleteOne();
  // Between two batches of one deletion, another file is moved to the place of the first one.
  await database().query("select filestore.move_node($1, $2, 'f')", [older, directory]);
  await deleteOne();
  await deleteOne();
  await database().query('select filestore.restore_node($1, null, true)', [directory]);
  expect(await database().query("select id, path from filestore.nodes where live and kind = 'file'")).toEqual(
    [{ id: older, path: 'd/f' }],
  );
});
