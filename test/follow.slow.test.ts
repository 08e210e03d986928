import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connectionTo, databaseUrl } from '../harness/connection.ts';
import { runMigrations } from '../src/index.ts';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { mulberry32 } from './support/mulberry32.ts';
import { examplesOf } from './support/packages/examples.ts';
import { packedServiceForFile } from './support/packages/packed-service.ts';
import { createDirectory, createMount, createNode, type Mount } from './support/rows/nodes.ts';
import { type OwnServer, startOwnServer } from './support/servers/own-server.ts';
import { until } from './support/until.ts';

const DOCUMENT = 'docs/follow.md';
const KILLS = 50;
/** How many bytes of the log the writers may be ahead of the follower. */
const MOST_BEHIND = 500_000;

const service = packedServiceForFile();
let server: OwnServer;
let owner: Client;
let url: string;
let seen: string;

/** Writes each transaction as a line, as a service would publish it. It may be killed after a number of them. */
const MAIN = `
import { appendFileSync } from 'node:fs';
let left = Number(process.env.KILLED_AFTER);
const write = async ({ position, changes }: Transaction) => {
  appendFileSync(process.env.SEEN ?? '', \`\${JSON.stringify({ position: String(position), changes })}\\n\`);
  left -= 1;
  if (left === 0) process.kill(process.pid, 'SIGKILL');
};
await follow(write, new AbortController().signal);
`;

beforeAll(async () => {
  server = await startOwnServer({ settings: ['wal_level=logical'], listen: 'tcp' });
  url = databaseUrl(server.url, 'filestore');
  owner = await connect(server.url);
  await owner.query('create database filestore');
  await owner.end();
  await runMigrations({ connection: connectionTo(url) });
  owner = await connect(url);
  for (const { statement } of examplesOf(DOCUMENT).filter(({ section }) => section === 'Prepare')) {
    await owner.query(statement);
  }
  await owner.query("alter role filestore_follower password 'follower'");
  const text = readFileSync(join(PACKAGE_ROOT, DOCUMENT), 'utf8');
  const [, follower = ''] = /^```ts\n([\s\S]*?)^```$/m.exec(text) ?? [];
  // Small batches, so that some runs confirm many, and some none.
  expect(follower).toContain('null, 10000,');
  const small = follower.replace('null, 10000,', 'null, 100,');
  expect(await service().compile(small + MAIN)).toBe('');
  seen = join(service().folder, 'seen');
  writeFileSync(seen, '');
});
afterAll(async () => {
  await owner?.end();
  await server?.stop();
});

async function connect(to: string): Promise<Client> {
  const client = new pg.Client(to);
  client.on('error', () => undefined);
  await client.connect();
  return client;
}

function startFollower(
  killedAfter = Number.POSITIVE_INFINITY,
  stdio: StdioOptions = 'inherit',
): ChildProcess {
  const own = new URL(url);
  own.username = 'filestore_follower';
  own.password = 'follower';
  return spawn(process.execPath, ['service.js'], {
    cwd: service().folder,
    stdio,
    env: {
      PATH: process.env.PATH,
      FOLLOWER_DATABASE_URL: own.href,
      SEEN: seen,
      KILLED_AFTER: `${killedAfter}`,
    },
  });
}

interface Seen {
  readonly position: bigint;
  readonly changes: readonly {
    readonly table: string;
    readonly kind: string;
    readonly row: Readonly<Record<string, string | null>>;
  }[];
}

const linesSeen = () => (existsSync(seen) ? readFileSync(seen, 'utf8').split('\n').slice(0, -1) : []);

const readSeen = (): readonly Seen[] =>
  linesSeen().map((line) => {
    const { position, changes } = JSON.parse(line);
    return { position: BigInt(position), changes };
  });

async function bytes(sql: string, client = owner): Promise<bigint> {
  const { rows } = await client.query(`select (${sql})::text as bytes from pg_replication_slots`);
  return BigInt(rows[0].bytes);
}

/** The follower has confirmed everything that is in the log now. */
async function untilConfirmed(): Promise<void> {
  const end = await bytes("pg_current_wal_flush_lsn() - '0/0'");
  await until(async () => (await bytes("confirmed_flush_lsn - '0/0'")) >= end);
}

const bytesBehind = (client: Client) => bytes('pg_current_wal_flush_lsn() - confirmed_flush_lsn', client);

/** Changes nodes at random, moves directories, and rolls some transactions back, until it is stopped. */
async function write(mount: Mount, seed: number, isOver: () => boolean): Promise<void> {
  const random = mulberry32(seed);
  const client = await connect(url);
  const directory = await createDirectory(client, mount, mount.rootId, `writer ${seed}`);
  const files: string[] = [];
  for (let step = 0; !isOver(); step += 1) {
    await until(async () => isOver() || (await bytesBehind(client)) < MOST_BEHIND);
    await client.query('begin');
    files.push(await createNode(client, mount, directory, `file ${step}`));
    for (const id of files.slice(-3)) {
      await client.query('update filestore.nodes set size_bytes = size_bytes + 1 where id = $1', [id]);
    }
    if (random() < 0.1) {
      await client.query('select filestore.move_node($1, new_name => $2)', [
        directory,
        `writer ${seed} ${step}`,
      ]);
    }
    await client.query("select filestore.begin_command('write')");
    if (random() < 0.2) {
      await client.query('rollback');
      files.pop();
    } else await client.query('commit');
  }
  await client.end();
}

const versionOf = ({ row: { id, version } }: Seen['changes'][number]) => `${id} ${version}`;

describe('the follower of docs/follow.md', () => {
  test(`that is killed ${KILLS} times under load misses nothing, keeps the order, and repeats only at the seam`, async () => {
    const mount = await createMount(owner);
    let isOver = false;
    const writers = [1, 2, 3].map((seed) => write(mount, seed, () => isOver));
    const random = mulberry32(7);
    const seams: number[] = [];
    for (let kill = 0; kill < KILLS; kill += 1) {
      seams.push(linesSeen().length);
      // Within the first batch, or after some of them.
      const follower = startFollower(Math.ceil(200 ** random()));
      await once(follower, 'exit');
    }
    isOver = true;
    await Promise.all(writers);
    seams.push(linesSeen().length);
    const last = startFollower();
    const { rows: commands } = await owner.query('select id from filestore.journal_entries');
    const { rows: versions } = await owner.query<{ version: string }>(
      `select id || ' ' || version as version from filestore.nodes
       union all
       select id || ' ' || version from filestore.snapshots`,
    );
    await untilConfirmed();
    last.kill('SIGKILL');
    await once(last, 'exit');

    const transactions = readSeen();
    const isRepeat = ({ position }: Seen, index: number) =>
      position <= (transactions[index - 1]?.position ?? 0n);
    const repeats = [...transactions.keys()].filter((index) => isRepeat(transactions[index] as Seen, index));
    expect(repeats.length).toBeGreaterThan(5);
    expect(repeats.filter((index) => !seams.includes(index))).toEqual([]);

    const byPosition = new Map(transactions.map((transaction) => [transaction.position, transaction]));
    const distinct = [...byPosition.values()].sort((a, b) => Number(a.position - b.position));
    const changes = distinct.flatMap((transaction) => transaction.changes);
    const nodes = changes.filter(({ table }) => table === 'nodes').map(versionOf);
    expect(new Set(nodes).size).toBe(nodes.length);
    expect([...nodes].sort()).toEqual(versions.map(({ version }) => version).sort());
    const entries = changes.filter(({ table }) => table === 'journal_entries').map(({ row }) => row.id);
    expect(entries.sort()).toEqual(commands.map(({ id }) => id).sort());
    // The versions of each node follow each other.
    const reached = new Map<string, number>();
    for (const { row } of changes.filter(({ table }) => table === 'nodes')) {
      const { id = '', version } = row;
      expect(Number(version)).toBe((reached.get(id ?? '') ?? 0) + 1);
      reached.set(id ?? '', Number(version));
    }
  }, 300_000);

  test('confirms what others write while nothing changes', async () => {
    const follower = startFollower();
    await owner.query('create table public.other as select generate_series(1, 1000) as n');
    await untilConfirmed();
    follower.kill('SIGKILL');
    await once(follower, 'exit');
  });

  test('fails with the codes of the document when the slot is lost, and when it is gone', async () => {
    await owner.query("alter system set max_slot_wal_keep_size = '1MB'");
    await owner.query('select pg_reload_conf()');
    await until(async () => {
      await owner.query('create table if not exists public.logged (); drop table public.logged');
      await owner.query('select pg_switch_wal()');
      await owner.query('checkpoint');
      const { rows } = await owner.query('select wal_status from pg_replication_slots');
      return rows[0].wal_status === 'lost';
    });
    expect(await failureOfFollower()).toContain("code: '55000'");

    await owner.query("select pg_drop_replication_slot('filestore_changes')");
    expect(await failureOfFollower()).toContain("code: '42704'");
  });
});

async function failureOfFollower(): Promise<string> {
  const follower = startFollower(undefined, ['ignore', 'ignore', 'pipe']);
  let said = '';
  follower.stderr?.on('data', (data) => {
    said += data;
  });
  await once(follower, 'exit');
  return said;
}
