import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf, livePaths, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

const UPSERT =
  'select * from filestore.upsert_file($1, $2, $3, expected_version => $4, last_seen_at => now())';
const MOVE = 'select * from filestore.move_node($1, null, $2)';
const REMOVE = 'select * from filestore.delete_node($1, null, $2)';

const clients: Client[] = [];
let first: Client;
let second: Client;
let mount: Mount;
let key: string;

beforeAll(async () => {
  while (clients.length < 20) clients.push(await connectAs('service'));
  [first, second] = clients as [Client, Client];
});

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
});

const upsert = (client: Client, path: string, size = 1, expected: number | null = null) =>
  one(client, UPSERT, [key, path, size, expected]);
const ensure = (path: string) => writersOn(first).ensure(key, path);
const live = () => livePaths(database(), mount.id);

describe('twenty callers at once', () => {
  test('on one new path create one file, with a version for each', async () => {
    const files = await Promise.all(clients.map((client, index) => upsert(client, 'a/b/c/f', index + 1)));
    expect(new Set(files.map(({ id }) => id)).size).toBe(1);
    expect(files.map(({ version }) => version).sort((one, other) => one - other)).toEqual(
      clients.map((_, index) => index + 1),
    );
    expect(files.map(({ size_bytes }) => Number(size_bytes)).sort((one, other) => one - other)).toEqual(
      clients.map((_, index) => index + 1),
    );
    expect(await live()).toEqual(['a', 'a/b', 'a/b/c', 'a/b/c/f']);
  });
});

describe('an upsert', () => {
  // The delete has locked the directory and waits for the file, which the upsert locks in its first attempt.
  test('releases the lock of a renamed file before it locks the directory', async () => {
    const { id } = await upsert(first, 'a/f');
    const { id: directory } = await ensure('a');
    await first.query('begin');
    await first.query("update filestore.nodes set name = 'g' where id = $1", [id]);
    const waiting = await sendAndBlock(second, UPSERT, [key, 'a/f', 5, null]);
    const removing = await sendAndBlock(clients[2] as Client, REMOVE, [directory, true]);
    expect([waiting.waits, removing.waits]).toEqual([true, true]);
    await first.query('commit');
    expect(await removing.outcome).toMatchObject({ ok: true });
    expect(await waiting.outcome).toMatchObject({ ok: true, result: { rows: [{ path: 'a/f' }] } });
    expect(await live()).toEqual(['a', 'a/f']);
  });

  test.each(['create_node', 'upsert_file'])(
    'with a sighting does not deadlock with a move of the directory: %s',
    async (name) => {
      const { id: directory } = await ensure('a');
      await first.query('begin');
      await first.query('select filestore.create_node($1, $2)', [directory, 'before']);
      const moving = await sendAndBlock(second, MOVE, [directory, 'z']);
      expect(moving.waits).toBe(true);
      if (name === 'create_node')
        await first.query('select filestore.create_node($1, $2, last_seen_at => now())', [directory, 'f']);
      else await first.query('select filestore.upsert_file($1, $2, last_seen_at => now())', [key, 'a/f']);
      await first.query('commit');
      expect(await moving.outcome).toMatchObject({ ok: true });
      expect(await live()).toEqual(['z', 'z/before', 'z/f']);
    },
  );
});
