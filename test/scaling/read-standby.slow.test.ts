import { afterAll, beforeAll, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';
import { startStandby } from '../support/servers/standby.ts';
import { until } from '../support/until.ts';
import { type Block, recipeOf, runBlock } from './recipe.ts';
import type { NumberedServer } from './two-servers.ts';

const [position, wait, poll] = recipeOf('Read from a standby') as readonly [Block, Block, Block];

let primary: OwnServer;
let standby: OwnServer;
let isFrom19: boolean;
beforeAll(async () => {
  primary = await startOwnServer();
  await runMigrations({ connection: connectionTo(primary.url) });
  await ask(
    primary,
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv')",
  );
  const [version] = await ask(primary, "select current_setting('server_version_num')::integer as number");
  isFrom19 = version?.number >= 190000;
  standby = await startStandby(primary, { follows: true });
}, 120_000);
afterAll(async () => {
  await standby?.stop();
  await primary?.stop();
});

const ask = (server: OwnServer, text: string) =>
  withClient(server.url, async (client) => (await client.query(text)).rows);

const asServers = () => {
  const of = (name: NumberedServer['name'], server: OwnServer): NumberedServer => ({
    name,
    server,
    url: server.url,
    superuserUrl: server.url,
  });
  return { source: of('source', primary), target: of('target', standby) };
};

const find = (name: string) => ask(standby, `select from filestore.node_by_path('media', '${name}')`);

/** Writes while the standby stands still, lets it go on once `isWaiting`, and expects it to show the write after `block`. */
async function expectRead(name: string, block: Block, isWaiting: () => Promise<boolean>): Promise<void> {
  const printed = new Map<string, string>();
  await ask(standby, 'select pg_wal_replay_pause()');
  await ask(primary, `select filestore.upsert_file('media', '${name}')`);
  await runBlock(asServers(), position, printed);
  let isOver = false;
  const waiting = runBlock(asServers(), block, printed).then(() => {
    isOver = true;
  });
  await until(isWaiting);
  expect(await find(name)).toEqual([]);
  expect(isOver).toBe(false);
  await ask(standby, 'select pg_wal_replay_resume()');
  await waiting;
  expect(await find(name)).toHaveLength(1);
}

test('a standby that repeats the question shows the write once the answer is true', async () => {
  await expectRead('polled', poll, async () => true);
}, 60_000);

test('from PostgreSQL 19 on, a standby that waits shows the write afterwards', async ({ skip }) => {
  skip(!isFrom19, 'older servers have no "wait for"');
  // Long enough for a busy machine.
  const patient = { ...wait, text: wait.text.replace("'2s'", "'60s'") };
  expect(patient.text).not.toBe(wait.text);
  await expectRead('awaited', patient, async () => {
    const sessions = await ask(standby, "select from pg_stat_activity where wait_event = 'WaitForWalReplay'");
    return sessions.length === 1;
  });
}, 60_000);

test('from PostgreSQL 19 on, a wait answers why it ended', async ({ skip }) => {
  skip(!isFrom19, 'older servers have no "wait for"');
  const far = "wait for lsn 'FFFFFFFF/0' with (timeout '10ms', no_throw)";
  expect(await ask(standby, far)).toEqual([{ status: 'timeout' }]);
  expect(await ask(primary, far)).toEqual([{ status: 'not in recovery' }]);
  const late = ask(standby, `begin isolation level repeatable read; select 1; ${far}`);
  await expect(late).rejects.toMatchObject({ message: expect.stringContaining('holds a snapshot') });
});
