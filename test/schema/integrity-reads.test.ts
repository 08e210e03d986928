import { beforeEach, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import { createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

const CHECK = 'select * from filestore.check_integrity()';

let mount: Mount;
beforeEach(async () => {
  mount = await createMount(database());
});

test('scans of deep directories are compared without temporary files', async () => {
  const deep = Array<string>(1290).fill('a').join('/');
  await withoutTriggers(database(), (superuser) =>
    superuser.query(
      `insert into filestore.scans (backend_mount_id, directory_id, path, is_recursive)
       select $1, $2, $3 || '/x' || g, false from generate_series(1, 100) g`,
      [mount.id, mount.rootId, deep],
    ),
  );
  const [{ 'QUERY PLAN': plan }] = (await database().query(
    `explain (analyze, buffers, format json) ${CHECK}`,
  )) as [{ 'QUERY PLAN': { Plan: Record<string, unknown> }[] }];
  expect(plan[0]?.Plan).toMatchObject({ 'Temp Read Blocks': 0, 'Temp Written Blocks': 0 });
});

test('pending deltas are not read again for each mount', async () => {
  for (let number = 0; number < 20; number += 1) await createMount(database());
  for (let number = 0; number < 20; number += 1) {
    await createNode(database(), mount, mount.rootId, `f${number}`);
  }
  const client = await database().connect();
  await client.query(`begin; ${CHECK}`);
  const { deltas, read } = await one(
    client,
    `select (select count(*) from filestore.rollup_deltas)::int as deltas,
            pg_stat_get_xact_tuples_returned('filestore.rollup_deltas'::regclass)::int as read`,
  );
  expect(deltas).toBeGreaterThan(10);
  expect(read).toBeLessThan(10 * deltas);
});
