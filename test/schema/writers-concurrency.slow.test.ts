import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, type Mount } from '../support/rows/nodes.ts';
import { keyOf, livePaths, type Writers, writersOn } from '../support/rows/writer-functions.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();

let mount: Mount;
let key: string;
let first: Client;
let writers: Writers;

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  first = await database().connect();
  writers = writersOn(database());
});

const ensure = (path: string) => writers.ensure(key, path);
const connections = (count: number) => Promise.all(Array.from({ length: count }, () => database().connect()));

async function problems() {
  return database().query('select * from filestore.check_integrity() where backend_mount_id = $1', [
    mount.id,
  ]);
}

/** Runs work on every connection for a time. Refusals of the schema are expected. */
async function storm(
  clients: readonly Client[],
  milliseconds: number,
  work: (client: Client, random: <T>(values: readonly T[]) => T, turn: number) => Promise<unknown>,
): Promise<readonly string[]> {
  const deadline = Date.now() + milliseconds;
  const random = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T;
  const failures: string[] = [];
  await Promise.all(
    clients.map(async (client) => {
      for (let turn = 0; Date.now() < deadline; turn += 1) {
        await work(client, random, turn).catch((error) => {
          if (!/^FS4/.test(error.code)) failures.push(`${error.code} ${error.message}`);
        });
      }
    }),
  );
  return failures;
}

/** Creates directories three levels deep and three wide, whose ids are not in order of path. */
async function grove(): Promise<string[]> {
  const paths = ['x', 'y', 'z'].flatMap((a) =>
    ['x', 'y', 'z'].flatMap((b) => [`${a}/${b}/x`, `${a}/${b}/y`]),
  );
  for (const path of paths.reverse()) await ensure(path);
  const rows = await database().query(
    "select id from filestore.nodes where backend_mount_id = $1 and parent_id is not null and kind = 'directory'",
    [mount.id],
  );
  return rows.map(({ id }) => id);
}

test('ensure_directory creates only at the given path, while directories of the path are moved again and again', async () => {
  const path = 'a/b/c/d/e/f';
  const clients = await connections(4);
  const failures = await storm([first, ...clients], 1500, async (client, _, turn) => {
    if (client !== first) return writersOn(client).ensure(key, `${path}/${turn}`);
    const { rows } = await client.query("select id from filestore.node_by_path($1, 'a')", [key]);
    return rows[0] && writersOn(client).move(rows[0].id, { name: `aside-${turn}` });
  });
  expect(failures).toEqual([]);
  const strays = await database().query(
    `select id, path from filestore.view_filestore_node_versions
     where backend_mount_id = $1 and version = 1 and path like 'aside%'`,
    [mount.id],
  );
  expect(strays).toEqual([]);
});

describe('many connections that change overlapping trees', () => {
  test('by moves, deletes and restores of trees do not deadlock, and leave no problem', async () => {
    const [clients, ids] = [await connections(8), await grove()];
    const failures = await storm(clients, 3000, (client, random) => {
      const sql = writersOn(client);
      return random([
        () =>
          sql.move(random(ids), {
            parent: random([mount.rootId, ...ids]),
            name: random(['x', 'y', 'z', 'w']),
          }),
        () => sql.move(random(ids), { name: random(['x', 'y', 'z', 'w']) }),
        () => sql.remove(random(ids), { recursive: true }),
        () => sql.restore(random(ids), { withTree: true }),
        () => sql.restore(random(ids), { withTree: true }),
        () => sql.create(random(ids), random(['f', 'g'])),
      ])();
    });
    expect(failures).toEqual([]);
    expect(await problems()).toEqual([]);
  });

  test('and by deletes and restores of single nodes do not deadlock either', async () => {
    const [clients, ids] = [await connections(8), await grove()];
    const failures = await storm(clients, 2000, (client, random) => {
      const sql = writersOn(client);
      return random([
        () => sql.remove(random(ids)),
        () => sql.restore(random(ids)),
        () => sql.remove(random(ids), { recursive: true }),
        () => sql.restore(random(ids), { withTree: true }),
        () => sql.move(random(ids), { parent: random([mount.rootId, ...ids]) }),
      ])();
    });
    expect(failures).toEqual([]);
    expect(await problems()).toEqual([]);
  });
});

describe('delete_node of a tree', () => {
  test('never fails while others create in it, and leaves no live node below', async () => {
    const [clients, ids] = [await connections(6), await grove()];
    const top = (await ensure('x')).id;
    let creating = true;
    const creates = clients.map(async (client, worker) => {
      for (let turn = 0; creating; turn += 1) {
        const directory = ids[(turn * 7 + worker) % ids.length] ?? '';
        await writersOn(client)
          .create(directory, `${worker}-${turn}`, turn % 2 === 0 ? 'directory' : 'file')
          .then((node) => node.kind === 'directory' && ids.push(node.id))
          .catch((error) => expect(error).toMatchObject({ code: 'FS404' }));
      }
    });
    await until(async () => (await livePaths(database(), mount.id)).length >= 200);
    const tombstone = await writersOn(first).remove(top, { recursive: true });
    creating = false;
    await Promise.all(creates);
    expect(tombstone).toMatchObject({ path: 'x', state: 'deleted' });
    expect((await livePaths(database(), mount.id)).filter((path) => path.startsWith('x'))).toEqual([]);
    expect(await problems()).toEqual([]);
  });
});
