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
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

const SEEN = '2026-02-01T00:00:00.000Z';
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
  test('does not deadlock with a purge that removes a directory after its files', async () => {
    await second.query(PASS, [[directory, ...files]]);
    for (const id of [...files, directory]) await deleteNode(database(), id);
    await foldAll(database());
    const third = await database().connect();
    await third.query('begin');
    await third.query('select from filestore.nodes where id = $1 for update', [directory]);
    const purging = await sendAndBlock(first, "select filestore.purge_deleted('0') as purged");
    const pass = await sendAndBlock(second, PASS, [[directory, ...files]]);
    expect([purging.waits, pass.waits]).toEqual([true, true]);
    await third.query('commit');
    expect(await purging.outcome).toMatchObject({ ok: true, result: { rows: [{ purged: 3 }] } });
    expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 0 }] } });
  });

  test('does not deadlock with erase_mount, which removes the root last', async () => {
    await second.query(PASS, [[mount.rootId, ...files]]);
    await database().query("update filestore.backend_mounts set state = 'inactive' where id = $1", [
      mount.id,
    ]);
    await database().query('select filestore.begin_erasing($1, 1000)', [await keyOf(database(), mount.id)]);
    const third = await database().connect();
    await third.query('begin');
    await third.query('select from filestore.backend_mounts where id = $1 for update', [mount.id]);
    const erasing = await sendAndBlock(first, 'select filestore.erase_batch($1, 1000, null) as batch', [
      mount.id,
    ]);
    const pass = await sendAndBlock(second, PASS, [[mount.rootId, ...files]]);
    expect([erasing.waits, pass.waits]).toEqual([true, true]);
    await third.query('commit');
    expect(await erasing.outcome).toMatchObject({ ok: true, result: { rows: [{ batch: 0 }] } });
    expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 0 }] } });
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

describe('receive_sightings', () => {
  const RECEIVE = 'select filestore.receive_sightings($1, $2, $3, $4) as received';
  let key: string;

  const receive = (ids: readonly string[]) => [key, ids, ids.map(() => SEEN), ids.map(() => null)];
  const stray = () =>
    database().query(
      'select from filestore.node_sightings s where not exists (select from filestore.nodes n where n.id = s.node_id)',
    );

  beforeEach(async () => {
    key = await keyOf(database(), mount.id);
    await database().query('call filestore.prepare_moves(true)');
    await database().query(
      `insert into filestore.moves (id, written_by, mount_id, mount_key, source_number, target_number, step, timeline)
       overriding system value values (9895604649989, 0, $1, $2, 9, 0, 'received', '1')`,
      [mount.id, key],
    );
  });

  test('waits for a purge, and adds the sightings of the remaining nodes', async () => {
    const [gone = '', kept = ''] = files;
    await deleteNode(database(), gone);
    await foldAll(database());
    await first.query('begin');
    expect(await one(first, "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 1 });
    const receiving = await sendAndBlock(second, RECEIVE, receive([gone, kept]));
    expect(receiving.waits).toBe(true);
    await first.query('commit');
    expect(await receiving.outcome).toMatchObject({ ok: true, result: { rows: [{ received: kept }] } });
    expect(await database().query('select node_id from filestore.node_sightings')).toEqual([
      { node_id: kept },
    ]);
  });

  test('does not add a sighting of a node that its owner removes at the same time', async () => {
    const [gone = ''] = files;
    await deleteNode(database(), gone);
    await foldAll(database());
    await first.query('begin');
    await first.query('delete from filestore.nodes where id = $1', [gone]);
    const receiving = await sendAndBlock(second, RECEIVE, receive([gone]));
    expect(receiving.waits).toBe(true);
    await first.query('commit');
    expect(await receiving.outcome).toMatchObject({ ok: true });
    expect(await stray()).toEqual([]);
  });

  test('does not deadlock with a pass that records some of the same nodes', async () => {
    const ids = [...files, await createNode(database(), mount, directory, 'c')];
    const [low = '', middle = '', high = ''] = ids;
    await database().query('select filestore.record_sightings($1, $2)', [
      [low, middle],
      '2026-01-01T00:00:00Z',
    ]);
    const third = await database().connect();
    await third.query('begin');
    await third.query('update filestore.node_sightings set last_reconciled_at = $2 where node_id = $1', [
      middle,
      SEEN,
    ]);
    const receiving = await sendAndBlock(first, RECEIVE, receive(ids));
    const pass = await sendAndBlock(second, PASS, [[low, high]]);
    expect([receiving.waits, pass.waits]).toEqual([true, true]);
    await third.query('commit');
    expect(await receiving.outcome).toMatchObject({ ok: true, result: { rows: [{ received: high }] } });
    expect(await pass.outcome).toMatchObject({ ok: true, result: { rows: [{ recorded: 2 }] } });
    expect(
      await database().query(
        'select node_id, last_seen_at = $1 as received from filestore.node_sightings order by 1',
        [SEEN],
      ),
    ).toEqual([
      { node_id: low, received: false },
      { node_id: middle, received: true },
      { node_id: high, received: false },
    ]);
  });

  test('adds what is newer, leaves what is older, and leaves the nodes of other mounts', async () => {
    const [known = '', late = ''] = files;
    const other = await createMount(database());
    await database().query('select filestore.record_sightings($1, $2)', [[known], '2026-01-01T00:00:00Z']);
    await database().query('select filestore.record_sightings($1, $2)', [[late], '2026-03-01T00:00:00Z']);
    await database().query(RECEIVE, receive([known, late, directory, other.rootId]));
    const seen = await database().query(
      'select node_id, last_seen_at as at from filestore.node_sightings order by 1',
    );
    expect(seen).toEqual([
      { node_id: directory, at: new Date(SEEN) },
      { node_id: known, at: new Date(SEEN) },
      { node_id: late, at: new Date('2026-03-01T00:00:00Z') },
    ]);
  });
});
