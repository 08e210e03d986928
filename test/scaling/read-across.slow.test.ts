import { afterAll, beforeAll, expect, test } from 'vitest';
import { fillMount } from './fill-mount.ts';
import { recipeOf, runBlock } from './recipe.ts';
import { startTwoServers, type TwoServers, withClient } from './two-servers.ts';

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
