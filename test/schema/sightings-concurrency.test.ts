import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  one,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

const PASS = 'select filestore.record_sightings($1) as recorded';

let mount: Mount;
let directory: string;
/** Files in the same order by id and by path. */
let files: readonly string[];
let first: Client;
let second: Client;

beforeEach(async () => {
  mount = await createMount(database());
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
  files = [
    await createNode(database(), mount, directory, 'a'),
    await createNode(database(), mount, directory, 'b'),
  ];
  await foldAll(database());
  [first, second] = [await database().connect(), await database().connect()];
});

describe('a pass that records sightings', () => {
  test('waits for a tree that is being deleted in the opposite order, and does not deadlock with it', async () => {
    await first.query('begin');
    await first.query('select filestore.delete_batch($1, 1)', [directory]);
    const pass = await sendAndBlock(second, PASS, [files]);
    expect(pass.waits).toBe(true);
    await first.query('select filestore.delete_batch($1, 10)', [directory]);
    await first.query('commit');
    expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 2 }] } });
  });

  test('waits for a purge, and records the remaining nodes', async () => {
    const [gone = '', kept = ''] = files;
    await deleteNode(database(), gone);
    await foldAll(database());
    await first.query('begin');
    expect(await one(first, "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    const pass = await sendAndBlock(second, PASS, [[gone, kept]]);
    expect(pass.waits).toBe(true);
    await first.query('commit');
    expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 1 }] } });
  });

  test('waits for a purge of its only node, and then records nothing', async () => {
    const [gone = ''] = files;
    await second.query(PASS, [[gone]]);
    await deleteNode(database(), gone);
    await foldAll(database());
    await first.query('begin');
    expect(await one(first, "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    const pass = await sendAndBlock(second, PASS, [[gone]]);
    expect(pass.waits).toBe(true);
    await first.query('commit');
    expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 0 }] } });
    expect(await database().query('select from filestore.node_sightings')).toEqual([]);
  });

  test('does not wait for writers of the nodes, and they do not wait for it', async () => {
    await first.query('begin');
    await first.query('update filestore.nodes set size_bytes = 5 where id = any ($1)', [files]);
    await first.query("select filestore.create_node($1, 'c')", [directory]);
    await second.query('begin');
    expect((await sendAndBlock(second, PASS, [[directory, ...files]])).waits).toBe(false);
    const update = 'update filestore.nodes set size_bytes = 6 where id = any ($1)';
    expect((await sendAndBlock(first, update, [files])).waits).toBe(false);
    await second.query('commit');
    await first.query('commit');
  });
});
