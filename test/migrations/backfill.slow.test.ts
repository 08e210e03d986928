import { expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { until } from '../support/until.ts';
import { readExamples, runsOf } from './guide.ts';
import { proofsIn } from './proofs.ts';
import { execute, folderForEachTest } from './run-examples.ts';

const database = databaseForEachTest();
const copy = folderForEachTest();
const { populate, history, values } = proofsIn(database);

test('a backfill that is killed halfway continues where it stopped, and adds no version', async () => {
  await populate();
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, metadata)
     select backend_mount_id, id, number::text, 'file', '{"media_type": "text/plain"}'
     from filestore.nodes, generate_series(1, 2500) number
     where name = 'a directory'`,
  );
  const before = await history();
  const example = readExamples().find(({ title }) => title === 'A new column of nodes');
  if (example === undefined) return expect.fail('there is no example of a new column');
  const client = await database().connect();
  const owner = await database().connect();
  for (const step of runsOf(example, copy())) {
    if (step.by === 'migration') {
      await execute(client, database().url, copy(), step);
      continue;
    }
    // The last node is locked, so the backfill waits in its last batch.
    const { rows } = await owner.query<{ pid: number }>('select pg_backend_pid() as pid');
    await client.query('begin');
    await client.query(
      'select from filestore.nodes where id = (select max(id) from filestore.nodes) for update',
    );
    const killed = expect(execute(owner, database().url, copy(), step)).rejects.toMatchObject({
      code: '57P01',
    });
    const isWaiting = 'select from pg_locks where pid = $1 and not granted';
    await until(async () => (await database().query(isWaiting, [rows[0]?.pid])).length > 0);
    await database().query('select pg_terminate_backend($1)', [rows[0]?.pid]);
    await killed;
    await client.query('rollback');
    const [job] = await database().query<{ filled: string }>('select * from filestore.backfills');
    expect(Number(job?.filled)).toBeGreaterThan(0);
    expect(Number(job?.filled)).toBeLessThan(2500);
    expect(job).toMatchObject({ finished_at: null });
    await execute(client, database().url, copy(), step);
  }
  expect(await values('select filled, finished_at is not null from filestore.backfills')).toEqual([
    '2500 true',
  ]);
  expect(await values('select count(*) from filestore.nodes where media_type is not null')).toEqual(['2500']);
  expect(await history()).toEqual(before);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});
