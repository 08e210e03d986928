import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, createNode, foldAll, type Mount, one, type Sql } from '../support/rows/nodes.ts';
import { keyOf, writersOn } from '../support/rows/writer-functions.ts';

const FILES = 20;

describe('erase_mount', () => {
  const database = databaseEmptiedAfterEachTest();
  let erased: Mount;
  let other: Mount;
  let key: string;

  const fill = async (mount: Mount) => {
    const writers = writersOn(database());
    const mountKey = await keyOf(database(), mount.id);
    for (const path of ['a/b', 'a/gone', 'z']) {
      const directory = await writers.ensure(mountKey, path);
      await database().query(
        `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
         select $1, $2, 'f' || g, 'file', 10 from generate_series(1, $3) g`,
        [mount.id, directory.id, FILES],
      );
      if (path === 'a/gone') await writers.remove(directory.id, { recursive: true });
    }
    await database().query(
      'update filestore.nodes set size_bytes = 5 where backend_mount_id = $1 and live and size_bytes > 5',
      [mount.id],
    );
    await database().query(
      'select filestore.record_sightings(array(select id from filestore.nodes where backend_mount_id = $1))',
      [mount.id],
    );
    await database().query("select filestore.begin_command('fill', mount_id => $1)", [mount.id]);
  };

  beforeEach(async () => {
    [erased, other] = [await createMount(database()), await createMount(database(), 's3')];
    key = await keyOf(database(), erased.id);
    await fill(erased);
    await foldAll(database());
    // These totals are still pending.
    await fill(other);
    await createNode(database(), erased, erased.rootId, 'pending');
  });

  const erase = (sql: Sql, batch = 7) => sql.query('call filestore.erase_mount($1, $2)', [key, batch]);
  const deactivate = () =>
    database().query("update filestore.backend_mounts set state = 'inactive' where id = $1", [erased.id]);
  const problems = () => database().query('select * from filestore.check_integrity()');

  /** All rows of a mount in all tables, in order. */
  const rowsOf = async (mount: Mount) => {
    const ids = '(select n.id from filestore.nodes n where n.backend_mount_id = $1)';
    const rows: Record<string, number | string> = {};
    for (const [table, condition] of [
      ['backend_mounts', 'id = $1'],
      ['nodes', 'backend_mount_id = $1'],
      ['snapshots', 'backend_mount_id = $1'],
      ['rollup_deltas', 'backend_mount_id = $1'],
      ['rollups', `node_id in ${ids}`],
      ['node_sightings', `node_id in ${ids}`],
    ] as const) {
      const { rows: found } = await one(
        database(),
        `select count(*) || ' ' || coalesce(md5(string_agg(t::text, ';' order by t::text)), '') as rows
         from filestore.${table} t where ${condition}`,
        [mount.id],
      );
      rows[table] = found;
    }
    return rows;
  };

  const journal = () =>
    database().query('select id, backend_mount_id, command from filestore.journal_entries order by id');

  /** Rows of any table whose mount or node does not exist any more. */
  const leftovers = async () =>
    database().query(
      `select 'history' as what from filestore.snapshots s where not exists (select from filestore.nodes n where n.id = s.id)
       union all select 'totals' from filestore.rollups r where not exists (select from filestore.nodes n where n.id = r.node_id)
       union all select 'sightings' from filestore.node_sightings s where not exists (select from filestore.nodes n where n.id = s.node_id)`,
    );

  test('is refused at another isolation level, before it marks the mount', async () => {
    await deactivate();
    const sql = await database().connect();
    await sql.query("set default_transaction_isolation = 'repeatable read'");
    await expect(erase(sql)).rejects.toMatchObject({ code: 'FS409', constraint: 'read_committed_check' });
    expect(
      await one(database(), 'select erasing_since from filestore.backend_mounts where id = $1', [erased.id]),
    ).toEqual({ erasing_since: null });
  });

  test('removes live nodes, tombstones, history, totals and sightings, and no row of another mount', async () => {
    const [rest, log] = [await rowsOf(other), await journal()];
    await deactivate();
    await erase(database());
    expect(Object.values(await rowsOf(erased))).toEqual(Array(6).fill('0 '));
    expect(await leftovers()).toEqual([]);
    expect(await rowsOf(other)).toEqual(rest);
    expect(await journal()).toEqual(log);
    expect(log.filter((entry) => entry.backend_mount_id === erased.id)).toHaveLength(1);
    expect(await problems()).toEqual([]);
  });

  test('refuses an active mount, an unknown mount, and a batch of 0', async () => {
    const before = await rowsOf(erased);
    await expect(erase(database())).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'backend_mounts_active',
      message: expect.stringContaining(`"${key}"`),
      hint: expect.stringContaining('inactive'),
    });
    await deactivate();
    await expect(database().query("call filestore.erase_mount('nowhere')")).rejects.toMatchObject({
      code: 'FS404',
      message: expect.stringContaining('"nowhere"'),
    });
    await expect(erase(database(), 0)).rejects.toMatchObject({ code: 'FS422' });
    expect((await rowsOf(erased)).nodes).toBe(before.nodes);
  });

  test.each([
    ['tombstones', 'not live and path', 'a/gone/f9'],
    ['live nodes', 'live and path', 'a/b/f15'],
  ])(
    'that is killed in the middle of its %s continues when it is called again',
    async (_, condition, path) => {
      const [rest, log] = [await rowsOf(other), await journal()];
      const total = Number.parseInt(String((await rowsOf(erased)).nodes), 10);
      await deactivate();
      const [holder, eraser] = [await database().connect(), await database().connect()];
      await holder.query('begin');
      await holder.query(
        `select from filestore.nodes where backend_mount_id = $1 and ${condition} = $2 for update`,
        [erased.id, path],
      );
      const { rows } = await eraser.query('select pg_backend_pid() as pid');
      const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 3)', [key]);
      expect(erasing.waits).toBe(true);
      await database().query('select pg_terminate_backend($1)', [rows[0].pid]);
      expect(await erasing.outcome).toMatchObject({ ok: false, error: { code: '57P01' } });
      await holder.query('rollback');

      const left = Number.parseInt(String((await rowsOf(erased)).nodes), 10);
      expect(left).toBeGreaterThan(1);
      expect(left).toBeLessThan(total);
      expect(await problems()).toEqual([]);
      expect(await leftovers()).toEqual([]);

      await erase(database());
      expect(Object.values(await rowsOf(erased))).toEqual(Array(6).fill('0 '));
      expect(await rowsOf(other)).toEqual(rest);
      expect(await journal()).toEqual(log);
      expect(await problems()).toEqual([]);
    },
  );

  test('a create during the last batch waits, and is refused because its directory is gone', async () => {
    await deactivate();
    const [holder, eraser, writer] = [
      await database().connect(),
      await database().connect(),
      await database().connect(),
    ];
    await holder.query('begin');
    await holder.query(
      "select from filestore.nodes where backend_mount_id = $1 and live and path = 'a/b/f1' for update",
      [erased.id],
    );
    const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 1000)', [key]);
    const creating = await sendAndBlock(
      writer,
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) values ($1, $2, 'late', 'file')",
      [erased.id, erased.rootId],
    );
    await holder.query('rollback');
    expect(erasing.waits).toBe(true);
    expect(creating.waits).toBe(true);
    expect(await erasing.outcome).toMatchObject({ ok: true });
    expect(await creating.outcome).toMatchObject({
      ok: false,
      error: { constraint: 'nodes_parent_missing' },
    });
    expect(await problems()).toEqual([]);
  });

  test.each([
    ['erase_mount', 'call filestore.erase_mount($1)'],
    ['start_move', 'select filestore.start_move($1, 7)'],
  ])('%s is refused when a mount is deleted while it waits', async (_, text) => {
    await database().query('call filestore.prepare_moves(true)');
    const key = await keyOf(database(), (await createMount(database())).id);
    const [operator, owner] = [await database().connect(), await database().connect()];
    await operator.query('begin');
    await operator.query('select filestore.delete_mount($1)', [key]);
    const waiting = await sendAndBlock(owner, text, [key]);
    expect(waiting.waits).toBe(true);
    await operator.query('commit');
    expect(await waiting.outcome).toMatchObject({
      ok: false,
      error: { code: 'FS404', constraint: 'backend_mounts_missing' },
    });
    await database().query('call filestore.prepare_moves(false)');
  });

  test('waits for a writer that holds the tree before it removes the first nodes', async () => {
    await deactivate();
    const { nodes } = await rowsOf(erased);
    const [holder, eraser] = [await database().connect(), await database().connect()];
    await holder.query('begin');
    await holder.query('select filestore.lock_tree($1, false)', [erased.id]);
    const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 7)', [key]);
    expect(erasing.waits).toBe(true);
    expect((await rowsOf(erased)).nodes).toEqual(nodes);
    await holder.query('rollback');
    expect(await erasing.outcome).toMatchObject({ ok: true });
    expect(await problems()).toEqual([]);
  });

  test('delete_mount waits for it, and does not deadlock with it', async () => {
    await deactivate();
    const [holder, eraser, deleter] = [
      await database().connect(),
      await database().connect(),
      await database().connect(),
    ];
    await holder.query('begin');
    await holder.query('select filestore.lock_tree($1, false)', [erased.id]);
    const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, 1000)', [key]);
    const deleting = await sendAndBlock(deleter, 'select filestore.delete_mount($1)', [key]);
    await holder.query('rollback');
    expect([erasing.waits, deleting.waits]).toEqual([true, true]);
    expect([await erasing.outcome, await deleting.outcome]).toMatchObject([
      { ok: true },
      { ok: false, error: { constraint: 'backend_mounts_missing' } },
    ]);
    expect(Object.values(await rowsOf(erased))).toEqual(Array(6).fill('0 '));
    expect(await problems()).toEqual([]);
  });

  test('its batches grow while files are created, also when other nodes came from a database with a higher number', async () => {
    await database().query(
      `insert into filestore.nodes (id, backend_mount_id, parent_id, name, kind)
       overriding system value values (5::bigint << 40, $1, $2, 'moved', 'file')`,
      [other.id, other.rootId],
    );
    await deactivate();
    const [holder, eraser] = [await database().connect(), await database().connect()];
    const batches: string[] = [];
    eraser.on('notice', ({ message }) => batches.push(String(message)));
    await holder.query('begin');
    await holder.query('select filestore.lock_tree($1, false)', [erased.id]);
    // The tombstones are one batch.
    const erasing = await sendAndBlock(eraser, 'call filestore.erase_mount($1, $2)', [key, FILES + 1]);
    await database().query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       select $1, $2, 'zz' || g, 'file' from generate_series(1, $3) g`,
      [erased.id, erased.rootId, 2 * FILES],
    );
    await holder.query('rollback');
    expect(await erasing.outcome).toMatchObject({ ok: true });
    expect(batches.slice(0, 3)).toEqual([
      `${FILES + 1} nodes erased`,
      `${FILES + 1} nodes erased`,
      `${2 * (FILES + 1)} nodes erased`,
    ]);
  });

  test('that was stopped keeps the folds of other mounts going, and cannot be opened again', async () => {
    await deactivate();
    // What it does until its first commits.
    await database().query('select filestore.begin_erasing($1, 7)', [key]);
    const { newest } = await one(database(), 'select max(id) as newest from filestore.nodes');
    for (let batch = 0; batch < 4; batch += 1) {
      await database().query('select filestore.erase_batch($1, 7, $2)', [erased.id, newest]);
    }
    await database().query(
      'update filestore.nodes set size_bytes = size_bytes + 1 where backend_mount_id = $1 and directory_path is null',
      [erased.id],
    );
    await foldAll(database());
    expect(
      await database().query('select from filestore.rollup_deltas where backend_mount_id = $1', [other.id]),
    ).toEqual([]);
    await expect(
      database().query("update filestore.backend_mounts set state = 'active' where id = $1", [erased.id]),
    ).rejects.toMatchObject({ code: 'FS409', constraint: 'backend_mounts_erasing' });
    await erase(database());
    expect(Object.values(await rowsOf(erased))).toEqual(Array(6).fill('0 '));
    expect(await problems()).toEqual([]);
  });

  test('an erased mount frees its key and its place', async () => {
    await deactivate();
    await erase(database(), 10_000);
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', '/data')",
      [key],
    );
    expect(await problems()).toEqual([]);
  });
});

describe.each(['service', 'operator'] as const)('a role of level %s', (level) => {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);

  test('can neither erase a mount nor set erasing_since', async () => {
    const client = await connectAs(level);
    const mount = await createMount(client);
    const key = await keyOf(client, mount.id);
    const denied = { code: '42501' };
    await client.query("update filestore.backend_mounts set state = 'inactive' where id = $1", [mount.id]);
    await expect(client.query('call filestore.erase_mount($1)', [key])).rejects.toMatchObject(denied);
    await expect(
      client.query('update filestore.backend_mounts set erasing_since = now() where id = $1', [mount.id]),
    ).rejects.toMatchObject(denied);
    await expect(
      client.query(
        `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, erasing_since)
         values ('new', 'local', '/new', now())`,
      ),
    ).rejects.toMatchObject(denied);
  });
});
