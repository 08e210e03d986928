import { afterEach, beforeEach, expect, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { collect, startCli } from '../support/command-line/command-line.ts';
import { fillMount } from '../support/rows/fill-mount.ts';
import type { OwnServer } from '../support/servers/own-server.ts';
import { startStandby } from '../support/servers/standby.ts';
import { until } from '../support/until.ts';
import { startTwoServers, type TwoServers } from './two-servers.ts';

let servers: TwoServers;
let standby: OwnServer | undefined;
let urls: { source: string; target: string };
beforeEach(async () => {
  servers = await startTwoServers();
  urls = { source: servers.source.url, target: servers.target.url };
  await withClient(urls.source, (client) => fillMount(client, 'media', 300, 1));
}, 120_000);
afterEach(async () => {
  await servers.stop();
  await standby?.stop();
});

const on = <Row extends object>(server: 'source' | 'target', text: string) =>
  withClient(urls[server], async (client) => (await client.query<Row>(text)).rows);
const PROBLEM = 'select problem from filestore.view_filestore_mount_moves';
const WRITE = "select filestore.upsert_file('media', 'd1/late', 5)";
const move = (...options: readonly string[]) => run(options);

/** Runs the command; kills it at a line. */
async function run(options: readonly string[], killAt?: string) {
  const child = startCli(['move', 'media', '--to', 'TARGET_URL', ...options], {
    env: { FILESTORE_DATABASE_URL: urls.source, TARGET_URL: urls.target },
  });
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    if (killAt !== undefined && text.includes(killAt)) child.kill('SIGKILL');
  });
  return collect(child);
}

/** Ends a server, and promotes the standby that has the data of an earlier moment. */
async function failOver(server: 'source' | 'target'): Promise<void> {
  await servers[server].server.shutDown('immediate');
  if (standby === undefined) throw new Error('there is no standby');
  const { url } = standby;
  await withClient(url, (client) => client.query('select pg_promote()'));
  urls = { ...urls, [server]: databaseUrl(url, 'filestore') };
}

test('a target that fails over to a standby that is behind is found, the move is taken back, and begins again', async () => {
  await run([], 'The target counts');
  await until(async () => {
    const rows = await on('target', "select from pg_subscription_rel where srsubstate <> 'r'");
    return rows.length === 0;
  });
  standby = await startStandby(servers.target.server);
  await on('source', WRITE);
  await until(async () => {
    const rows = await on('target', "select from filestore.nodes where path = 'd1/late'");
    return rows.length === 1;
  });
  // Otherwise the slot would send it again.
  await until(async () => {
    const [row] = await on<{ confirmed: boolean }>(
      'source',
      'select confirmed_flush_lsn >= pg_current_wal_lsn() as confirmed from pg_replication_slots',
    );
    return row?.confirmed;
  });
  await failOver('target');
  const failed = await move();
  expect(failed, failed.output).toMatchObject({ exitCode: 1 });
  expect(failed.stderr).toContain('is not the same on both servers');
  await on('source', WRITE);
  const back = await move('--back');
  expect(back, back.output).toMatchObject({ exitCode: 0 });
  expect(await on('target', 'select from filestore.nodes')).toEqual([]);
  const again = await move();
  expect(again, again.output).toMatchObject({ exitCode: 0 });
  expect(await on('target', "select from filestore.nodes where path = 'd1/late'")).toHaveLength(1);
}, 180_000);

test('a source that fails over to a standby that is behind takes no writes, since the target may have the mount', async () => {
  await run([], 'Cutting over');
  standby = await startStandby(servers.source.server);
  const kept = await move('--keep');
  expect(kept, kept.output).toMatchObject({ exitCode: 0 });
  await on('target', WRITE);
  await failOver('source');
  await expect(on('source', WRITE)).rejects.toMatchObject({ constraint: 'backend_mounts_moving' });
  const [view] = await on<{ problem: string }>('source', PROBLEM);
  expect(view?.problem).toContain('was promoted after the move began');
  const back = await move('--back');
  expect(back).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('the target has received it') });
  await expect(on('source', WRITE)).rejects.toMatchObject({ constraint: 'backend_mounts_moving' });
  await on('target', WRITE);
}, 180_000);

test('a source that fails over during the copy takes writes again when the move is taken back', async () => {
  await run([], 'The target counts');
  standby = await startStandby(servers.source.server);
  const onStandby = databaseUrl(standby.url, 'filestore');
  const { rows } = await withClient(onStandby, (client) => client.query(PROBLEM));
  expect(rows).toEqual([{ problem: null }]);
  await failOver('source');
  await expect(on('source', WRITE)).rejects.toMatchObject({ constraint: 'backend_mounts_moving' });
  const back = await move('--back');
  expect(back, back.output).toMatchObject({ exitCode: 0 });
  await on('source', WRITE);
  const again = await move();
  expect(again, again.output).toMatchObject({ exitCode: 0 });
  expect(await on('source', 'select from filestore.nodes')).toEqual([]);
  expect(await on('target', 'select * from filestore.check_integrity()')).toEqual([]);
}, 180_000);
