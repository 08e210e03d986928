import { afterAll, beforeAll, expect, test } from 'vitest';
import { until } from '../support/until.ts';
import { createSmallMount, NO_ROWS, newWalk, rowsOf } from './small-mounts.ts';
import { startTwoDatabases, type TwoDatabases } from './two-databases.ts';

let databases: TwoDatabases;
beforeAll(async () => {
  databases = await startTwoDatabases();
}, 120_000);
afterAll(() => databases?.stop());

test('a copy that goes on after the source has taken its move back brings no rows of other mounts', async () => {
  const other = await createSmallMount(databases.one);
  const [mount] = await databases.one.query<{ id: string }>(
    'select id from filestore.backend_mounts where mount_key = $1',
    [other],
  );
  const walk = await (await newWalk(databases)).to('accept');
  const holder = await walk.target.connect();
  await holder.query('begin; lock table filestore.backend_mounts, filestore.nodes in share mode');
  await walk.subscribe();
  await until(async () => {
    const rows = await walk.target.query(
      "select from pg_locks l join pg_stat_activity a using (pid) where not l.granted and l.mode = 'RowExclusiveLock' and a.backend_type like 'logical replication%'",
    );
    return rows.length === 2;
  });
  await walk.source.query('call filestore.cancel_move($1)', [walk.key]);
  await holder.query('commit');
  await until(
    async () =>
      (await walk.target.query("select from pg_subscription_rel where srsubstate in ('i', 'd')")).length ===
        0 || (await walk.target.query('select from filestore.nodes')).length > 0,
  );
  expect(await rowsOf(walk.target, mount?.id)).toEqual(NO_ROWS);
}, 60_000);
