import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';
import { keyOf, writersOn } from '../support/rows/writer-functions.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

/** Checks for deadlocks fifty times as often as usual, so that none resolves by chance. */
const SETTINGS = ['deadlock_timeout=20ms', 'max_connections=40'];

const FILES = 1500;

let server: OwnServer;
let sql: Client;
let mount: Mount;
let key: string;
const clients: Client[] = [];

const connect = async () => {
  const client = new pg.Client(server.url);
  client.on('error', () => undefined);
  await client.connect();
  clients.push(client);
  return client;
};

beforeAll(async () => {
  server = await startOwnServer({ settings: SETTINGS });
  await runMigrations({ connection: connectionTo(server.url) });
  sql = await connect();
  mount = await createMount(sql);
  key = await keyOf(sql, mount.id);
});

afterAll(async () => {
  await Promise.allSettled(clients.map((client) => client.end()));
  await server?.stop();
});

const processOf = (client: Client) => (client as Client & { readonly processID: number }).processID;

let seen = 0;

beforeEach(() => {
  seen = 0;
  seen = deadlocks().length;
});

/** The deadlocks of this test in the server's log, which also has those that a function caught. */
const deadlocks = () =>
  (
    readFileSync(join(server.folder, 'postgres.log'), 'utf8').match(/deadlock detected\n.*(?:\n\t.*)*/g) ?? []
  ).slice(seen);

/** Waits until a session has changed its first row or has finished. */
async function untilItWrites(client: Client, work: Promise<unknown>): Promise<void> {
  let done = false;
  void work.finally(() => {
    done = true;
  });
  while (!done) {
    const { rows } = await sql.query(
      "select from pg_locks where pid = $1 and locktype = 'transactionid' and granted",
      [processOf(client)],
    );
    if (rows.length > 0) return;
  }
}

/** Runs all other functions at random, each on its own connection, until it is stopped. */
function startTheRest(top: string): { stop(): Promise<ReadonlySet<string>> } {
  const codes = new Set<string>();
  let stopped = false;
  const random = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T;
  const some = async (client: Client, condition: string) => {
    const { rows } = await client.query(
      `select id from filestore.nodes where backend_mount_id = $1 and parent_id is not null and ${condition}
       order by random() limit 20`,
      [mount.id],
    );
    return rows.map(({ id }) => id as string);
  };
  const directory = async (client: Client) => random(await some(client, "live and kind = 'directory'"));
  const work: readonly ((client: Client) => Promise<unknown>)[] = [
    async (client) =>
      writersOn(client).move(random(await some(client, "live and kind = 'file'")), {
        parent: await directory(client),
      }),
    async (client) =>
      writersOn(client).remove(random(await some(client, "live and kind = 'directory' and depth > 2")), {
        recursive: true,
      }),
    async (client) =>
      writersOn(client).restore(random(await some(client, 'not live')), { withTree: random([true, false]) }),
    async (client) => writersOn(client).create(await directory(client), `new${Math.random()}`),
    async (client) =>
      writersOn(client).ensure(key, `${top}/${random(['x', 'x2'])}/${random(['y', 'y/z', 'w'])}`),
    async (client) => client.query('select filestore.record_sightings($1)', [await some(client, 'true')]),
    async (client) => client.query('select filestore.record_sightings($1)', [await some(client, 'true')]),
    async (client) =>
      client.query('select filestore.set_states($1, $2)', [
        await some(client, 'live'),
        random(['missing', 'active']),
      ]),
    async (client) =>
      client.query('select filestore.update_nodes($1)', [
        JSON.stringify(
          (await some(client, "live and kind = 'file'")).map((id) => ({ id, size_bytes: random([1, 2]) })),
        ),
      ]),
    async (client) =>
      client.query('select filestore.copy_tree($1, $2, on_conflict => $3)', [
        random(await some(client, "live and kind = 'directory' and depth > 2")),
        await directory(client),
        random(['skip', 'overwrite']),
      ]),
    async (client) =>
      client.query('select filestore.upsert_directory($1, $2, $3, replace_file => $4)', [
        ...[
          key,
          `${top}/x/${random(['y', 'y/z', 'w', 'f'])}`,
          `{"n": ${random([1, 2])}}`,
          random([true, false]),
        ],
      ]),
    async (client) => client.query('select filestore.fold_rollups()'),
    async (client) => client.query('select filestore.fold_rollups(7)'),
    async (client) => client.query('select filestore.recount_rollups($1)', [key]),
    async (client) => client.query("select filestore.purge_deleted('0', 50)"),
  ];
  const running = work.map(async (step) => {
    const client = await connect();
    while (!stopped) await step(client).catch((error) => codes.add(error.code ?? error.message));
  });
  return {
    async stop() {
      stopped = true;
      await Promise.all(running);
      return codes;
    },
  };
}

test.each([
  ['alone', 12],
  ['beside everything else that functions do', 10],
])(
  'renames of directories above each other and an ensure below both never deadlock, %s',
  async (how, rounds) => {
    const top = `d${rounds}`;
    const writers = writersOn(sql);
    const x = await writers.ensure(key, `${top}/x`);
    const d = await writers.ensure(key, top);
    await sql.query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'f' || g, 'file' from generate_series(1, $3) g`,
      [mount.id, x.id, FILES],
    );
    const rest = how === 'alone' ? undefined : startTheRest(top);
    const [first, second, third] = [await connect(), await connect(), await connect()];
    const failures: string[] = [];
    const failed = (error: { readonly code?: string; readonly message: string }) => {
      failures.push(`${error.code} ${error.message}`);
    };

    for (let round = 0; round < rounds; round += 1) {
      // Removes the directories that the last round created.
      for (const [path, own] of [
        [top, d.id],
        [`r${rounds}`, d.id],
        [`${top}/x`, x.id],
        [`${top}/x2`, x.id],
      ] as const) {
        const { rows } = await sql.query('select id from filestore.node_by_path($1, $2)', [key, path]);
        if (rows[0] !== undefined && rows[0].id !== own)
          await writers.move(rows[0].id, { name: `aside ${round} ${path.replace('/', ' ')}` }).catch(failed);
        if (path === top) await writers.move(d.id, { name: top }).catch(failed);
      }
      await writers.move(x.id, { name: 'x' }).catch(failed);
      const moving = writersOn(first).move(x.id, { name: 'x2' }).catch(failed);
      await untilItWrites(first, moving);
      await Promise.all([
        moving,
        writersOn(second).ensure(key, `${top}/x/y`).catch(failed),
        writersOn(third)
          .move(d.id, { name: `r${rounds}` })
          .catch(failed),
      ]);
    }

    const codes = [...((await rest?.stop()) ?? []), ...failures.map((failure) => failure.slice(0, 5))];
    expect(codes.filter((code) => !code.startsWith('FS4'))).toEqual([]);
    expect(deadlocks()).toEqual([]);
    expect(await sql.query('select * from filestore.check_integrity()')).toMatchObject({ rows: [] });
  },
);

test('ensure_directory holds no lock on a directory that moved in the meantime', async () => {
  const writers = writersOn(sql);
  const [d, x] = [await writers.ensure(key, 'forced'), await writers.ensure(key, 'forced/x')];
  const [renamer, creator, mover] = [await connect(), await connect(), await connect()];
  const waitsFor = async (client: Client, lock: string) => {
    for (;;) {
      const { rows } = await sql.query(
        `select from pg_locks l join pg_stat_activity a using (pid)
         where pid = $1 and not l.granted and l.locktype = $2 and a.wait_event_type = 'Lock'`,
        [processOf(client), lock],
      );
      if (rows.length > 0) return;
      await delay(2);
    }
  };

  // A rename of x without the tree lock, so that a move of the directory above can begin in the meantime.
  await renamer.query('begin');
  await renamer.query('set local session_replication_role = replica');
  await renamer.query(
    `update filestore.nodes set name = 'x2', path = 'forced/x2', directory_path = 'forced/x2' where id = $1`,
    [x.id],
  );
  const ensuring = writersOn(creator).ensure(key, 'forced/x/y');
  ensuring.catch(() => undefined);
  await waitsFor(creator, 'transactionid');
  const moving = writersOn(mover).move(d.id, { name: 'moved' });
  moving.catch(() => undefined);
  // Its cascade reaches x as the second one.
  await waitsFor(mover, 'tuple');
  await renamer.query('commit');

  expect(await moving).toMatchObject({ path: 'moved' });
  expect(await ensuring).toMatchObject({ path: 'forced/x/y' });
  expect(deadlocks()).toEqual([]);
});
