import { beforeEach } from 'vitest';
import type { TestDatabase } from '../databases/test-database.ts';
import { createMount, createNode, foldAll, type Mount, one, type Sql } from './nodes.ts';
import { keyOf, writersOn } from './writer-functions.ts';

export const FILES_IN_DIRECTORY = 20;

/** Before each test, a mount to erase with rows in all tables, and another one whose totals are still pending. */
export function mountsToErase(database: () => TestDatabase) {
  let erased: Mount;
  let other: Mount;
  let key: string;

  beforeEach(async () => {
    [erased, other] = [await createMount(database()), await createMount(database(), 's3')];
    key = await keyOf(database(), erased.id);
    await fill(database(), erased);
    await foldAll(database());
    await fill(database(), other);
    await createNode(database(), erased, erased.rootId, 'pending');
  });

  return {
    erased: () => erased,
    other: () => other,
    key: () => key,
    erase: (sql: Sql, batch = 7) => sql.query('call filestore.erase_mount($1, $2)', [key, batch]),
    deactivate: () =>
      database().query("update filestore.backend_mounts set state = 'inactive' where id = $1", [erased.id]),
    problems: () => database().query('select * from filestore.check_integrity()'),
    rowsOf: (mount: Mount) => rowsOf(database(), mount),
    journal: () =>
      database().query('select id, backend_mount_id, command from filestore.journal_entries order by id'),
    leftovers: () => leftovers(database()),
  };
}

async function fill(sql: Sql, mount: Mount): Promise<void> {
  const writers = writersOn(sql);
  const key = await keyOf(sql, mount.id);
  for (const path of ['a/b', 'a/gone', 'z']) {
    const directory = await writers.ensure(key, path);
    await sql.query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
       select $1, $2, 'f' || g, 'file', 10 from generate_series(1, $3) g`,
      [mount.id, directory.id, FILES_IN_DIRECTORY],
    );
    if (path === 'a/gone') await writers.remove(directory.id, { recursive: true });
  }
  await sql.query(
    'update filestore.nodes set size_bytes = 5 where backend_mount_id = $1 and live and size_bytes > 5',
    [mount.id],
  );
  await sql.query(
    'select filestore.record_sightings(array(select id from filestore.nodes where backend_mount_id = $1))',
    [mount.id],
  );
  await sql.query("select filestore.begin_command('fill', mount_id => $1)", [mount.id]);
}

/** All rows of a mount in all tables, in order. */
async function rowsOf(sql: Sql, mount: Mount): Promise<Record<string, string>> {
  const ids = '(select n.id from filestore.nodes n where n.backend_mount_id = $1)';
  const rows: Record<string, string> = {};
  for (const [table, condition] of [
    ['backend_mounts', 'id = $1'],
    ['nodes', 'backend_mount_id = $1'],
    ['snapshots', 'backend_mount_id = $1'],
    ['rollup_deltas', 'backend_mount_id = $1'],
    ['rollups', `node_id in ${ids}`],
    ['node_sightings', `node_id in ${ids}`],
  ] as const) {
    const { rows: found } = await one(
      sql,
      `select count(*) || ' ' || coalesce(md5(string_agg(t::text, ';' order by t::text)), '') as rows
       from filestore.${table} t where ${condition}`,
      [mount.id],
    );
    rows[table] = found;
  }
  return rows;
}

/** Rows of any table whose node does not exist any more. */
async function leftovers(database: TestDatabase) {
  return database.query(
    `select 'history' as what from filestore.snapshots s where not exists (select from filestore.nodes n where n.id = s.id)
     union all select 'totals' from filestore.rollups r where not exists (select from filestore.nodes n where n.id = r.node_id)
     union all select 'sightings' from filestore.node_sightings s where not exists (select from filestore.nodes n where n.id = s.node_id)`,
  );
}
