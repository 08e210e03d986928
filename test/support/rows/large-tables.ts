import type { Client } from 'pg';
import { type TestDatabase, withoutTriggers } from '../databases/test-database.ts';
import { createMount, type Mount, one } from './nodes.ts';

export const ENTRIES = 300_000;

/** Turns autovacuum off: plans, and how often they read an index, would depend on when it last analyzed a table. */
export async function keepStatistics(database: TestDatabase): Promise<void> {
  await database.query(`
    do $$
    declare
      table_name regclass;
    begin
      for table_name in
        select oid from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'r'
      loop
        execute format('alter table %s set (autovacuum_enabled = off)', table_name);
      end loop;
    end $$`);
}

/**
 * Fills the journal with entries of the past, most of them of mounts 1 and 2 and three commands. Mount 3, the command
 * scan and canceled entries are rare and old. Mount 5 and the command upload are frequent and old. One entry in 200
 * failed, and the last 50 are unfinished.
 */
export async function loadLargeJournal(database: TestDatabase): Promise<void> {
  await keepStatistics(database);
  const client = await database.connectAsSuperuser();
  // Without triggers: they refuse entries of the past.
  await client.query('set session_replication_role = replica');
  await client.query('select setseed(0.5)');
  await client.query(
    `insert into filestore.journal_entries
       (backend_mount_id, command, status, error, started_at, completed_at, created_at, idempotency_key, correlation_id,
        primary_node_id, secondary_node_id, affected_node_ids)
     select case when is_old and g % 10000 = 7 then 3 when g <= 60000 then 5 when chance < 0.7 then 1 else 2 end,
            case when is_old and g % 10000 = 9 then 'scan' when g <= 60000 then 'upload'
                 when chance < 0.5 then 'write' when chance < 0.95 then 'create_node' else 'move_node' end,
            status, case when status = 'failed' then '{"message": "gone"}'::jsonb end,
            case when status <> 'queued' then moment end, case when status not in ('queued', 'running') then moment end, moment,
            case when g % 3 = 0 then 'key-' || g end, 'correlation-' || g / 2,
            node, case when chance >= 0.95 then node + 1 end, array[node, 5000 + g % 20000]
     from (
       select g, g <= 100000 as is_old, random() as chance, (random() * 4000)::bigint as node,
              now() - ($1 - g) * interval '1 minute' as moment,
              case when g > $1 - 50 then case g % 2 when 0 then 'queued' else 'running' end
                   when g % 200 = 11 then 'failed' when g <= 100000 and g % 20000 = 13 then 'canceled' else 'succeeded' end as status
       from generate_series(1, $1::integer) g
     ) past`,
    [ENTRIES],
  );
  await client.query('vacuum analyze filestore.journal_entries');
  await client.end();
}

export const DIRECTORIES = 300;
export const FILES = 300_000;

/**
 * Creates 300 directories d1, d2, … with files f1 to f1000 each. Every tenth file (f7, f17, …) is deleted. All have an
 * earlier version and a sighting of now. There are also `d1/lock`, which was deleted 2 000 times, and the directories
 * `empty` and `gone`; `gone` and its files f1 to f100 are deleted. Files are inserted without triggers, since with them
 * the load would take a minute. So the totals do not include them.
 */
export async function loadLargeTree(database: TestDatabase): Promise<Mount> {
  await keepStatistics(database);
  const mount = await createMount(database, 's3');
  await database.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, d.name, 'directory'
     from (select 'd' || g from generate_series(1, ${DIRECTORIES}) g union all values ('empty'), ('gone')) d (name)`,
    [mount.id, mount.rootId],
  );
  await withoutTriggers(database, async (client) => {
    const indexes = await dropIndexes(client);
    for (const statement of [FILES_OF_DIRECTORIES, LOCK_FILES, FILES_OF_GONE, VERSIONS, SIGHTINGS]) {
      await client.query(statement);
    }
    for (const index of indexes) await client.query(index);
  });
  await database.query("update filestore.nodes set state = 'deleted' where name = 'gone'");
  await database.query('vacuum analyze');
  return mount;
}

/** Drops the indexes that slow the load down, and returns the statements that recreate them. */
async function dropIndexes(client: Client): Promise<readonly string[]> {
  const { rows } = await client.query<{ name: string; definition: string }>(
    `select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition
     from pg_index i
     where i.indrelid in ('filestore.nodes'::regclass, 'filestore.snapshots'::regclass)
       and not exists (select from pg_constraint c where c.conindid = i.indexrelid)`,
  );
  for (const { name } of rows) await client.query(`drop index ${name}`);
  return rows.map(({ definition }) => definition);
}

export async function idOf(database: TestDatabase, path: string): Promise<string> {
  return (await one(database, 'select max(id) as id from filestore.nodes where path = $1', [path])).id;
}

/** Inserts files with all columns that triggers would set. The given text ends the statement. */
const INSERT = `
  insert into filestore.nodes
    (backend_mount_id, parent_id, parent_path, parent_live, name, path, depth, live, kind, size_bytes, checksum, metadata,
     state, version, created_at, updated_at, deleted_at)
  select d.backend_mount_id, d.id, d.path, case when f.live then true end, f.name, d.path || '/' || f.name, 2, f.live,
    'file', f.size_bytes, 'md5:' || md5(d.name || f.name), f.metadata,
    case when f.live then f.state else 'deleted' end, 2, f.created_at, f.created_at + interval '1 second',
    case when not f.live then f.created_at + interval '1 second' end`;

const FILES_OF_DIRECTORIES = `${INSERT}
  from filestore.nodes d
  cross join lateral (
    select 'f' || g as name, g % 10 <> 7 as live, g * 4096 as size_bytes,
      case when g % 500 = 1 then 'missing' when g % 500 = 2 then 'inconsistent' else 'active' end as state,
      case when g % 100 = 3 then jsonb_build_object('tag', d.name, 'kind', 'photo') else '{}' end as metadata,
      now() - interval '30 days' as created_at
    from generate_series(1, ${FILES / DIRECTORIES}) g
  ) f
  where d.name like 'd%'`;

const LOCK_FILES = `${INSERT}
  from filestore.nodes d
  cross join lateral (
    select 'lock' as name, false as live, 0 as size_bytes, '' as state, '{}'::jsonb as metadata,
      now() - interval '20 days' + g * interval '1 minute' as created_at
    from generate_series(1, 2000) g
  ) f
  where d.path = 'd1'`;

const FILES_OF_GONE = `${INSERT}
  from filestore.nodes d
  cross join lateral (
    select 'f' || g as name, false as live, 0 as size_bytes, '' as state, '{}'::jsonb as metadata,
      now() - interval '10 days' as created_at
    from generate_series(1, 100) g
  ) f
  where d.path = 'gone'`;

const VERSIONS = `
  insert into filestore.snapshots
  select n.created_at, n.updated_at, null, v.*
  from filestore.nodes n
  cross join lateral jsonb_populate_record(
    n,
    '{"version": 1, "state": "active", "live": true, "deleted_at": null}' || jsonb_build_object('updated_at', n.created_at)
  ) v
  where n.kind = 'file'`;

const SIGHTINGS = `
  insert into filestore.node_sightings (node_id, last_seen_at)
  select n.id, now()
  from filestore.nodes n`;
