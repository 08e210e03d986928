import { afterAll, beforeAll, expect, test } from 'vitest';
import { newWalk } from './small-mounts.ts';
import { startTwoDatabases, type TwoDatabases } from './two-databases.ts';

let databases: TwoDatabases;
beforeAll(async () => {
  databases = await startTwoDatabases();
}, 120_000);
afterAll(() => databases?.stop());

const WAITS = { waits_for: expect.stringContaining('1 transactions that have written') };

test('a mark waits for a prepared writer, also after the source has restarted', async () => {
  const walk = await (await newWalk(databases)).to('subscribe');
  const writer = await walk.source.connect();
  await writer.query('begin');
  await writer.query('select filestore.upsert_file($1, $2, 5)', [walk.key, 'd/prepared']);
  const prove = async (client: typeof writer) =>
    (await client.query('select filestore.prove_mount($1) as receipt', [walk.key])).rows[0]?.receipt;
  // The first call sets the mark.
  await prove(walk.source.client);
  expect(await prove(walk.source.client)).toMatchObject(WAITS);
  await writer.query("prepare transaction 'writer'");
  await databases.server.restart('fast');
  const client = await walk.source.connect();
  expect(await prove(client)).toMatchObject(WAITS);
  await client.query("commit prepared 'writer'");
  expect(await prove(client)).toMatchObject({ early: expect.anything() });
}, 60_000);
