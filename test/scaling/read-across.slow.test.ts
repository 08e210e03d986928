import { afterAll, beforeAll, expect, test } from 'vitest';
import { withClient } from '../../src/testing/with-client.ts';
import { fillMount } from '../support/rows/fill-mount.ts';
import { recipeOf, runBlock } from './recipe.ts';
import { startTwoServers, type TwoServers } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
  await withClient(servers.source.url, async (client) => {
    await fillMount(client, 'media', 2000, 1);
    await client.query(
      `select filestore.upsert_file('media', 'd1/scan.pdf', checksum => 'sha256:' || repeat('ab', 32))`,
    );
    await client.query("select filestore.begin_command('scan', correlation_id => 'request-7')");
  });
  await withClient(servers.target.url, async (client) => {
    await fillMount(client, 'archive', 2000, 1);
    await client.query(
      `select filestore.upsert_file('archive', 'd1/copy.pdf', checksum => 'sha256:' || repeat('ab', 32))`,
    );
    await client.query("select filestore.begin_command('copy', correlation_id => 'request-7')");
  });
});
afterAll(() => servers.stop());

test('mounts, files with a checksum and commands of a correlation are read from both servers', async () => {
  const steps = recipeOf('Read across servers');
  expect(steps.length).toBeGreaterThan(3);
  for (const step of steps) await runBlock(servers, step);
}, 120_000);

test('a checksum is looked up by the index of the other server', async () => {
  const [find = ''] = recipeOf('Read across servers').flatMap(({ text }) =>
    text.includes('hashtextextended') ? [text] : [],
  );
  const { rows } = await withClient(servers.target.url, (client) =>
    client.query(`explain (verbose, costs off) ${find.split(';')[0]}`),
  );
  const plan = rows.map((row) => row['QUERY PLAN']).join('\n');
  expect(plan).toMatch(/Remote SQL: .*hashtextextended\(checksum/);
});

test('a mount that moves is found on one server: where it comes from until it is received', async () => {
  const [list = ''] = recipeOf('Read across servers').flatMap(({ text }) =>
    text.includes('distinct on (m.mount_key)') ? [text] : [],
  );
  const row = await withClient(servers.source.url, async (client) => {
    await client.query('call filestore.prepare_moves(true)');
    await client.query("select filestore.start_move('media', 2)");
    const { rows } = await client.query(
      "select to_jsonb(m) as row from filestore.backend_mounts m where m.mount_key = 'media'",
    );
    return rows[0].row;
  });
  // As the subscription writes it.
  await withClient(servers.target.superuserUrl, async (client) => {
    await client.query('set session_replication_role = replica');
    await client.query(
      `insert into filestore.backend_mounts overriding system value
       select * from jsonb_populate_record(null::filestore.backend_mounts, $1)`,
      [row],
    );
  });
  await withClient(servers.target.url, async (client) => {
    const servedBy = async () => (await client.query(list.split(';')[0] ?? '')).rows;
    expect(await servedBy()).toContainEqual({ server: 'source', mount_key: 'media' });
    await client.query("update filestore.backend_mounts set held_by = null where mount_key = 'media'");
    const answer = await servedBy();
    expect(answer).toContainEqual({ server: 'target', mount_key: 'media' });
    expect(answer).not.toContainEqual({ server: 'source', mount_key: 'media' });
  });
});
