import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  foldAll,
  type Mount,
  one,
} from '../support/rows/nodes.ts';
import { overwrite, prune } from '../support/rows/pruned-history.ts';
import { recordEntries } from '../support/rows/scans.ts';

const database = databaseForFile();

let mount: Mount;
let key: string;
let directory: string;
let file: string;

/** Writes rows to every table. */
beforeAll(async () => {
  mount = await createMount(database());
  ({ mount_key: key } = await one(
    database(),
    'select mount_key from filestore.backend_mounts where id = $1',
    [mount.id],
  ));
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
  file = await createNode(database(), mount, directory, 'f');
  const gone = await createNode(database(), mount, directory, 'gone');
  for (const size of [1, 2, 3]) {
    await database().query(
      'update filestore.nodes set size_bytes = $2, last_modified_at = clock_timestamp() where id = $1',
      [file, size],
    );
  }
  await foldAll(database());
  await database().query('update filestore.nodes set size_bytes = 9 where id = $1', [file]);
  await deleteNode(database(), gone);
  await database().query('select filestore.restore_node($1)', [gone]);
  await deleteNode(database(), gone);
  await database().query('select filestore.record_sightings($1, clock_timestamp(), clock_timestamp())', [
    [file, directory, gone],
  ]);
  await database().query(
    "select filestore.finish_command((b.entry).id, 'succeeded') from filestore.begin_command('x') b",
  );
  const pruned = await createMount(database());
  await overwrite(database(), await createNode(database(), pruned, pruned.rootId, 'pruned'), 9);
  expect(await prune(database(), '0', 8)).toBe(1);
  const ended = await one(database(), 'select id from filestore.begin_scan($1, $2)', [key, 'scanned']);
  await database().query('select filestore.cancel_scan($1)', [ended.id]);
  const running = await one(database(), 'select id from filestore.begin_scan($1)', [key]);
  await recordEntries(database(), running.id, [
    { path: 'd/f', size_bytes: 9, last_modified_at: '2024-05-05T05:05:05.123456Z' },
  ]);
  await database().query('select filestore.apply_scan($1, 1)', [running.id]);
  await database().query(
    "update filestore.backend_mounts set state = 'inactive', erasing_since = clock_timestamp()",
  );
  await database().query("update filestore.backend_mounts set state = 'active', erasing_since = null");
  await database().query(
    `insert into filestore.access_levels (role_name, role_oid, level) values ('a role', 1, 'reader');
     insert into filestore.backfills (table_name, column_name, expression, finished_at) values ('nodes', 'x', 'y', clock_timestamp());
     insert into filestore.imports (backend_mount_id, takes_nodes, finished_at) values (1, true, clock_timestamp());
     insert into filestore.moves (
       written_by, mount_id, mount_key, source_number, target_number, step, timeline, marked_at, closed_until, finished_at
     )
     values (
       filestore.database_number(), 1, 'x', filestore.database_number(), 2, 'finished', '1', clock_timestamp(), clock_timestamp(), clock_timestamp()
     )`,
  );
});

/** Every timestamp column of tables and views. */
async function momentColumns() {
  return database().query<{ relation: string; name: string; type: string }>(
    `select c.oid::regclass::text as relation, quote_ident(a.attname) as name, format_type(a.atttypid, a.atttypmod) as type
     from pg_attribute a
     join pg_class c on c.oid = a.attrelid
     where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
       and a.attnum > 0 and not a.attisdropped and a.atttypid in ('timestamptz'::regtype, 'timestamp'::regtype)
     order by 1, a.attnum`,
  );
}

describe("a moment survives JavaScript's Date:", () => {
  test('every column of a table or view is in whole milliseconds', async () => {
    const columns = await momentColumns();
    expect(columns.length).toBeGreaterThan(25);
    expect(columns.filter(({ type }) => type !== 'timestamp(3) with time zone')).toEqual([]);
  });

  test('every value that is read as a Date finds its row again', async () => {
    const unread: string[] = [];
    for (const { relation, name } of await momentColumns()) {
      const rows = await database().query<{ moment: Date }>(
        `select distinct ${name} as moment from ${relation} where ${name} is not null`,
      );
      if (rows.length === 0) unread.push(`${relation}.${name}`);
      for (const { moment } of rows) {
        const found = await database().query(`select ${name} as moment from ${relation} where ${name} = $1`, [
          moment,
        ]);
        expect(found.length, `${relation}.${name}`).toBeGreaterThan(0);
        expect(found[0]?.moment).toEqual(moment);
      }
    }
    expect(unread).toEqual([
      'filestore.backend_mounts.erasing_since',
      'filestore.view_filestore_active_nodes.deleted_at',
    ]);
  });

  test('totals are dated to the millisecond in which they changed, and not to the next one', async () => {
    for (let round = 0; round < 20; round += 1) {
      await database().query(
        `do $$
         begin
           perform filestore.recount_rollups(m.mount_key) from filestore.backend_mounts m where m.history_horizon is null;
           if exists (select from filestore.rollups r where r.last_calculated_at > statement_timestamp()) then
             raise exception 'counted in the future';
           end if;
         end
         $$`,
      );
    }
  });

  test('the tests below cover every function that takes a moment', async () => {
    expect(
      await database().query(
        `select p.proname::text as name from pg_proc p
         where p.pronamespace = 'filestore'::regnamespace and 'timestamptz'::regtype = any (p.proargtypes::oid[]) order by 1`,
      ),
    ).toEqual(
      [
        // Called by record_entries and sync_nodes.
        'add_entries',
        // Called by every function that takes a sighting.
        'check_sighting_moment',
        'count_nodes',
        'create_node',
        'delete_batch',
        // Called by apply_scan.
        'is_vacated',
        'is_written_since',
        'list_nodes',
        'list_unseen',
        'node_at',
        // Called by prune_history.
        'prunable_versions',
        'record_entries',
        'record_sightings',
        // Called by create_node and upsert_file.
        'record_write_sighting',
        // Called by restore_node.
        'restore_tree',
        // Called by count_nodes and list_nodes.
        'search_nodes',
        // Called by apply_scan and sync_nodes.
        'see_nodes',
        'tree_at',
        'upsert_directory',
        'upsert_file',
      ].map((name) => ({ name })),
    );
  });

  test('node_at and tree_at return the version from the moment it began, until the moment it ended', async () => {
    const versions = await database().query(
      `select id, version, path, live, valid_from, valid_to from filestore.view_filestore_node_versions
       where backend_mount_id = $1`,
      [mount.id],
    );
    expect(versions.length).toBeGreaterThan(8);
    for (const { id, version, path, live, valid_from, valid_to } of versions) {
      const at = async (moment: Date) =>
        (await database().query('select version from filestore.node_at($1, $2)', [id, moment])).map(
          (row) => row.version,
        );
      expect(await at(valid_from)).toEqual([version]);
      if (valid_to !== null) {
        expect(await at(new Date(valid_to.getTime() - 1))).toEqual([version]);
        expect(await at(valid_to)).toEqual([version + 1]);
      }
      const tree = await database().query(
        'select id, version from filestore.tree_at($1, $2, $3) where id = $4',
        [...[key, path, valid_from, id]],
      );
      expect(tree).toEqual(live ? [{ id, version }] : []);
    }
  });

  test('pages in the order of updated_at reach the end and miss no node', async () => {
    await database().query(
      "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select $1, $2, 'page' || g, 'file' from generate_series(1, 50) g",
      [mount.id, directory],
    );
    const seen: string[] = [];
    let after: readonly [Date, string] = [new Date(0), '0'];
    for (let page = 0; page < 100; page += 1) {
      const rows = await database().query<{ id: string; updated_at: Date }>(
        'select id, updated_at from filestore.nodes where (updated_at, id) > ($1, $2) order by updated_at, id limit 7',
        [...after],
      );
      const last = rows.at(-1);
      if (last === undefined) break;
      seen.push(...rows.map(({ id }) => id));
      after = [last.updated_at, last.id];
    }
    const { nodes } = await one(database(), 'select count(*)::int as nodes from filestore.nodes');
    expect([seen.length, new Set(seen).size]).toEqual([nodes, nodes]);
  });

  test.each([
    ['a Date of the caller', () => new Date()],
    ['the moment that the database chose', () => null],
    ['microseconds', () => '2024-05-05 05:05:05.123456+00'],
  ])('a tree that was deleted in batches with %s is restored as one', async (_, given) => {
    const top = await createDirectory(database(), mount, mount.rootId, 'batch');
    for (const name of ['1', '2', '3']) await createNode(database(), mount, top, name);
    await database().query(
      'select filestore.delete_batch($1, 1, coalesce($2::timestamptz, statement_timestamp()))',
      [top, given()],
    );
    const { deleted_at } = await one(
      database(),
      'select deleted_at from filestore.nodes where parent_id = $1 and not live',
      [top],
    );
    for (;;) {
      const { deleted } = await one(database(), 'select filestore.delete_batch($1, 1, $2) as deleted', [
        top,
        deleted_at,
      ]);
      if (deleted === 0) break;
    }
    await database().query('select filestore.restore_node($1, with_tree => true)', [top]);
    const { live } = await one(
      database(),
      'select count(*)::int as live from filestore.nodes where live and (id = $1 or parent_id = $1)',
      [top],
    );
    expect(live).toBe(4);
    await database().query('select filestore.move_node($1, new_name => $2)', [top, `done-${top}`]);
  });

  test('the beginning of a scan, and a moment that the database gave, can be given to record_entries', async () => {
    const place = await createDirectory(database(), mount, mount.rootId, `scanned-${directory}`);
    await database().query(
      'select filestore.cancel_scan(id) from filestore.scans where ended_at is null and backend_mount_id = $1',
      [mount.id],
    );
    const { id, started_at: began } = await one(
      database(),
      'select * from filestore.begin_scan($1, (select path from filestore.nodes where id = $2))',
      [key, place],
    );
    const { now } = await one(database(), 'select clock_timestamp() as now');
    for (const [index, moment] of [began, now].entries()) {
      await recordEntries(database(), id, [{ path: `${index}` }], '', moment.toISOString());
    }
    const { rows } = await (await database().connect()).query(
      'select listed_at from filestore.scan_entries where scan_id = $1 and not is_implied order by path',
      [id],
    );
    expect(rows.map(({ listed_at: listed }) => listed)).toEqual([began, now]);
  });

  test('a sighting given to record_sightings, create_node or upsert_file is read back unchanged', async () => {
    const moment = new Date(Date.now() - 1001);
    await database().query('select filestore.record_sightings(array[$1::bigint], $2, $2)', [
      mount.rootId,
      moment,
    ]);
    expect(
      await one(
        database(),
        'select last_seen_at, last_reconciled_at from filestore.node_sightings where node_id = $1',
        [mount.rootId],
      ),
    ).toEqual({ last_seen_at: moment, last_reconciled_at: moment });
    for (const call of [
      "create_node($1, 'dated', last_modified_at => $2, last_seen_at => $2)",
      "upsert_file((select mount_key from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id where n.id = $1), 'written', last_modified_at => $2, last_seen_at => $2)",
    ]) {
      const node = await one(database(), `select id, last_modified_at from filestore.${call}`, [
        mount.rootId,
        moment,
      ]);
      expect(node.last_modified_at).toEqual(moment);
      expect(
        await one(database(), 'select last_seen_at from filestore.node_sightings where node_id = $1', [
          node.id,
        ]),
      ).toEqual({ last_seen_at: moment });
    }
  });
});

test('versions of one node within a millisecond still have an order', async () => {
  const id = await createNode(database(), mount, mount.rootId, 'fast');
  await database().query(
    `do $$ begin for size in 1..20 loop update filestore.nodes set size_bytes = size where id = ${id}; end loop; end $$`,
  );
  const rows = await database().query<{ valid_from: Date; valid_to: Date | null }>(
    'select valid_from, valid_to from filestore.view_filestore_node_versions where id = $1 order by version',
    [id],
  );
  expect(rows).toHaveLength(21);
  for (const { valid_from, valid_to } of rows) {
    if (valid_to !== null) expect(valid_to.getTime()).toBeGreaterThan(valid_from.getTime());
  }
});
