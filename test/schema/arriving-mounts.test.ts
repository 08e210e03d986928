import { beforeEach, describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, withoutTriggers } from '../support/databases/test-database.ts';
import { createMovingMount, MOVING } from '../support/rows/moving-mount.ts';
import { createMount, foldAll, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let key: string;
let directory: string;
let file: string;
let ticket: Record<string, unknown>;

const query = (text: string, values: unknown[] = []) => database().query(text, values);
const problems = () => query('select problem, detail from filestore.check_integrity()');
const accept = (given: object = ticket) => query('select filestore.accept_move($1)', [given]);

beforeEach(async () => {
  await query('call filestore.prepare_moves(true)');
  const { r } = await one(
    database(),
    "select jsonb_build_object('move', 9895604649989, 'source', 9, 'target', 0, 'schema', filestore.mount_schema()) as r",
  );
  ticket = r;
});

describe('accept_move', () => {
  const arriving = (columns: object) => ({
    ...ticket,
    mount: {
      id: '77',
      mount_key: 'new',
      backend_kind: 'local',
      root_path: '/new',
      config: {},
      labels: {},
      access_policy: {},
      access_mode: 'rw',
      state: 'active',
      version: 1,
      created_at: '2026-01-01T00:00:00Z',
      updated_at: '2026-01-01T00:00:00Z',
      ...columns,
    },
  });

  test.each<[string, object]>([
    ['key', { mount_key: 'here' }],
    ['directory', { root_path: '/here' }],
  ])('refuses a mount whose %s another mount has', async (_, columns) => {
    await query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('here', 'local', '/here')",
    );
    await expect(accept(arriving(columns))).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'moves_place_check',
      hint: expect.stringContaining('in the way'),
    });
    expect(await query('select from filestore.moves')).toEqual([]);
    await accept(arriving({}));
    expect(await query("select from filestore.backend_mounts where mount_key = 'new'")).toEqual([]);
  });

  test('keeps the key for the mount until the move ends', async () => {
    const insert = () =>
      query(
        "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('new', 'local', '/other')",
      );
    const refused = { code: 'FS409', constraint: 'backend_mounts_mount_key_key' };
    await accept(arriving({}));
    await expect(insert()).rejects.toMatchObject(refused);
    await createMount(database());
    await expect(query("update filestore.backend_mounts set mount_key = 'new'")).rejects.toMatchObject(
      refused,
    );
    await query("call filestore.cancel_move('new')");
    await insert();
  });

  test('keeps the guards on from then on', async () => {
    await accept(arriving({}));
    await expect(query('call filestore.prepare_moves(false)')).rejects.toMatchObject({
      ...MOVING,
      message: 'mount "new" is moving between servers',
    });
  });

  test('refuses a mount whose rows are left here', async () => {
    const left = await createMount(database());
    await expect(accept(arriving({ id: left.id }))).rejects.toMatchObject({
      constraint: 'moves_place_check',
    });
  });

  test.each<[string, object]>([
    ['of another target', { target: 3 }],
    ['of another schema', { schema: 'x' }],
    ['without a mount', { mount: null }],
  ])('refuses a ticket %s', async (_, change) => {
    await expect(accept({ ...arriving({}), ...change })).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'moves_receipt_check',
    });
  });

  test('accepts a ticket again, and no second move of the same mount', async () => {
    await accept(arriving({}));
    await accept(arriving({}));
    await expect(accept({ ...arriving({}), move: 6 })).rejects.toMatchObject({
      constraint: 'moves_open_key',
    });
  });
});

describe('on its new server', () => {
  // As the subscription writes it.
  const arrive = (held: number) =>
    query('update filestore.backend_mounts set held_by = $2 where id = $1', [mount.id, held]);

  beforeEach(async () => {
    ({ mount, key, directory, file } = await createMovingMount(database()));
    await query(
      `insert into filestore.moves (id, written_by, mount_id, mount_key, source_number, target_number, step, timeline)
       overriding system value values (9895604649989, 0, $1, $2, 9, 0, 'accepted', '1')`,
      [mount.id, key],
    );
    await withoutTriggers(database(), async (client) => {
      await client.query('delete from filestore.rollup_deltas');
      await client.query('delete from filestore.rollups where node_id = any ($1)', [
        [mount.rootId, directory],
      ]);
    });
    await arrive(9);
  });

  test('a mount is refused while it arrives, and not checked', async () => {
    await expect(query("select filestore.create_node($1, 'new')", [directory])).rejects.toMatchObject(MOVING);
    await expect(query('select filestore.record_sightings(array[$1::bigint])', [file])).rejects.toMatchObject(
      MOVING,
    );
    await expect(query('select filestore.recount_rollups($1)', [key])).rejects.toMatchObject(MOVING);
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 0 });
    expect(await problems()).toEqual([]);
    // Its nodes can arrive before it.
    await withoutTriggers(database(), (client) =>
      client.query('delete from filestore.backend_mounts where id = $1', [mount.id]),
    );
    expect(await problems()).toEqual([]);
    await expect(query('delete from filestore.snapshots')).rejects.toMatchObject({
      constraint: 'snapshots_fixed',
    });
  });

  test('a mount is not opened by a receipt whose values are null', async () => {
    await arrive(-1);
    await query("update filestore.moves set step = 'proved'");
    const forged = { move: 9895604649989, attempt: 0, released: null };
    await expect(query('select filestore.receive_mount($1, $2)', [key, forged])).rejects.toMatchObject({
      constraint: 'moves_receipt_check',
    });
  });

  test('a mount that is received keeps its key until its move is finished', async () => {
    await query("update filestore.moves set step = 'received'");
    await query('update filestore.backend_mounts set held_by = null');
    const rename = "update filestore.backend_mounts set mount_key = 'other-key' where id = $1";
    await expect(query(rename, [mount.id])).rejects.toMatchObject(MOVING);
    await query('select filestore.finish_move($1)', [key]);
    await query(rename, [mount.id]);
  });

  test('a mount is not opened before everything is proved, nor by the release of another attempt', async () => {
    const release = { move: 9895604649989, attempt: 0, released: null };
    await expect(query('select filestore.receive_mount($1, $2)', [key, release])).rejects.toMatchObject({
      constraint: 'moves_step_check',
    });
    await query("update filestore.moves set step = 'proved', attempt = 2, late_digest = '{}'");
    await arrive(-1);
    for (const wrong of [
      { ...release, attempt: 1, released: {} },
      { ...release, move: 6, attempt: 2, released: {} },
      { ...release, attempt: 2, released: { versions: 1 } },
    ]) {
      await expect(query('select filestore.receive_mount($1, $2)', [key, wrong])).rejects.toMatchObject({
        constraint: 'moves_receipt_check',
      });
    }
    await expect(query('select filestore.receive_mount($1)', [key])).rejects.toMatchObject({
      constraint: 'moves_step_check',
    });
    await expect(query("select filestore.create_node($1, 'new')", [directory])).rejects.toMatchObject(MOVING);
  });

  test('a mount that is released is opened by the next writer, with totals that are stale until they are recounted', async () => {
    await arrive(-1);
    await query("update filestore.moves set step = 'proved', attempt = 2, late_digest = '{}'");
    await query(
      "insert into filestore.rollups (node_id, consistency_state) values ($1, 'stale'), ($2, 'stale')",
      [mount.rootId, directory],
    );
    // As the subscription writes it.
    await query(
      `insert into filestore.moves (id, written_by, mount_id, mount_key, source_number, target_number, step, timeline, attempt, late_digest)
       overriding system value values (9895604649989, 9, $1, $2, 9, 0, 'released', '1', 2, '{}')`,
      [mount.id, key],
    );
    await query('select filestore.writable_mount($1)', [key]);
    await query("select filestore.create_node($1, 'new')", [directory]);
    await foldAll(database());
    const totals =
      'select consistency_state as state, file_count::integer as files from filestore.directory_totals($1)';
    expect(await one(database(), totals, [mount.rootId])).toMatchObject({ state: 'stale' });
    await query('select filestore.recount_rollups($1)', [key]);
    expect(await one(database(), totals, [mount.rootId])).toEqual({ state: 'up_to_date', files: 2 });
    expect(await problems()).toEqual([]);
    expect(await one(database(), 'select step from filestore.moves where written_by = 0')).toEqual({
      step: 'received',
    });
  });

  test('a mount that arrived in part is erased by taking the move back, with its journal, and not by its key', async () => {
    await expect(query('call filestore.erase_mount($1)', [key])).rejects.toMatchObject(MOVING);
    await query('call filestore.cancel_move($1, batch => 1)', [key]);
    for (const table of [
      'backend_mounts',
      'nodes',
      'snapshots',
      'journal_entries',
      'rollups',
      'node_sightings',
    ]) {
      expect(await query(`select from filestore.${table}`), table).toEqual([]);
    }
    await expect(accept({ ...ticket, mount: { id: mount.id, mount_key: key } })).rejects.toMatchObject({
      constraint: 'moves_step_check',
    });
  });

  test('a copy without the row of its mount is erased too, and a mount of the same key stays', async () => {
    const own = await createMount(database());
    const ownKey = await keyOf(database(), own.id);
    await withoutTriggers(database(), async (client) => {
      await client.query('delete from filestore.backend_mounts where id = $1', [mount.id]);
      await client.query('delete from filestore.nodes where id = $1', [file]);
      await client.query('update filestore.moves set mount_key = $1', [ownKey]);
    });
    await query('call filestore.cancel_move($1)', [ownKey]);
    expect(await query('select distinct backend_mount_id as id from filestore.nodes')).toEqual([
      { id: own.id },
    ]);
    for (const table of ['snapshots', 'journal_entries']) {
      expect(await query(`select from filestore.${table}`), table).toEqual([]);
    }
    expect(await problems()).toEqual([]);
  });
});
