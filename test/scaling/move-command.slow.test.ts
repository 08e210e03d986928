import { afterAll, beforeAll, expect, test } from 'vitest';
import { runCli } from '../support/command-line/command-line.ts';
import { fillMount } from './fill-mount.ts';
import { startTwoServers, type TwoServers, withClient } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
}, 120_000);
afterAll(() => servers?.stop());

const env = () => ({ FILESTORE_DATABASE_URL: servers.source.url, TARGET_URL: servers.target.url });
const move = (key: string, ...options: readonly string[]) =>
  runCli(['move', key, '--to', 'TARGET_URL', ...options], { env: env() });
const on = <Row extends object>(server: 'source' | 'target', text: string, values: unknown[] = []) =>
  withClient(servers[server].url, async (client) => (await client.query<Row>(text, values)).rows);
const fill = (key: string, nodes = 500) =>
  withClient(servers.source.url, (client) => fillMount(client, key, nodes, 1));
const nodesOn = async (server: 'source' | 'target', key: string) => {
  const rows = await on<{ nodes: number }>(
    server,
    `select count(*)::integer as nodes from filestore.nodes n
     join filestore.backend_mounts m on m.id = n.backend_mount_id where m.mount_key = $1`,
    [key],
  );
  return rows[0]?.nodes;
};
const problems = async () => [
  ...(await on('source', 'select * from filestore.check_integrity()')),
  ...(await on('target', 'select * from filestore.check_integrity()')),
];

test('one command moves a mount, and does nothing when it is given again', async () => {
  await fill('media');
  const nodes = await nodesOn('source', 'media');
  const result = await move('media');
  expect(result, result.output).toMatchObject({ exitCode: 0 });
  expect(result.stdout).toMatch(
    /Done: mount "media" is on database "filestore" on .*; no server took writes for /,
  );
  expect([await nodesOn('source', 'media'), await nodesOn('target', 'media')]).toEqual([0, nodes]);
  expect(await on('source', 'select from pg_publication')).toEqual([]);
  expect(await on('target', 'select from pg_subscription')).toEqual([]);
  expect(await on('source', 'select from pg_replication_slots')).toEqual([]);
  expect(await problems()).toEqual([]);
  expect(await move('media')).toMatchObject({ exitCode: 0 });
  expect(result.output).not.toContain(new URL(servers.source.url).password);
}, 120_000);
