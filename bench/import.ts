import pg, { type Client } from 'pg';
import { withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { atLeast, compare, inTurns, secondsOf, settle, thousands } from './measure.ts';

const FILES_PER_DIRECTORY = 50;

/**
 * import_nodes() of a tree with an old version and a journal entry for each node, the journal in a second session, against
 * inserting the finished rows with all triggers and keys disabled, as a superuser, in one session, and counting the totals.
 */
export const importing: Comparison = ({ server, nodes, rounds, report }) =>
  withDatabase(server, async ({ url, client }) => {
    const connect = async () => {
      const other = new pg.Client(url);
      await other.connect();
      return other;
    };
    let mounts = 0;
    const staged = async () => {
      mounts += 1;
      await stage(client, mounts, nodes);
      await settle(client);
    };
    const { imported, inserted } = await inTurns(rounds, {
      imported: async () => {
        await staged();
        const key = `bench-${mounts}`;
        const journal = await connect();
        return (
          nodes /
          (await secondsOf(() =>
            Promise.all([
              client.query(`call filestore.import_nodes('${key}', 'old.nodes', 'old.versions')`),
              journal.query(`call filestore.import_nodes('${key}', null, null, 'old.entries')`),
            ]).finally(() => journal.end()),
          ))
        );
      },
      inserted: async () => {
        await staged();
        await prepareRows(client, mounts);
        await settle(client);
        return nodes / (await secondsOf(() => insertRows(client, mounts)));
      },
    });
    const { rows } = await client.query('select count(*)::int as problems from filestore.check_integrity()');
    if (rows[0].problems > 0) throw new Error(`check_integrity() reports ${rows[0].problems} problems`);
    report(
      compare(
        `nodes of an import of ${thousands(nodes)} with history and journal, twin: finished rows without triggers and keys`,
        '/s',
        imported,
        inserted,
        atLeast(0.3),
      ),
    );
  });

/** Stages a tree, its versions and its journal, with ids above those of the rows before, and registers the mount. */
async function stage(client: Client, mount: number, nodes: number): Promise<void> {
  const first = mount * 10 * nodes + 1_000_000;
  await client.query('drop schema if exists old cascade; create schema old');
  await client.query(`
    create table old.nodes as
    select
      ${first} + g as id,
      case when g % ${FILES_PER_DIRECTORY} = 0 then null else ${first} + g - g % ${FILES_PER_DIRECTORY} end::bigint as parent_id,
      case when g % ${FILES_PER_DIRECTORY} = 0 then 'directory ' else 'file ' end || g as name,
      case when g % ${FILES_PER_DIRECTORY} = 0 then 'directory' else 'file' end as kind,
      case when g % ${FILES_PER_DIRECTORY} = 0 then 0 else g end::bigint as size_bytes,
      case when g % 5 = 1 then 3 when g % 5 < 4 and g % ${FILES_PER_DIRECTORY} > 0 then 2 else 1 end as version,
      case when g % ${FILES_PER_DIRECTORY} > 0 then 'sha256:' || md5(g::text) || md5(g::text) end as checksum,
      jsonb_build_object('camera', 'x' || g % 100) as metadata,
      timestamptz '2025-01-01Z' as created_at,
      timestamptz '2025-06-01Z' as updated_at
    from generate_series(${FILES_PER_DIRECTORY}, ${nodes + FILES_PER_DIRECTORY - 1}) g`);
  await client.query(`
    create table old.versions as
    select n.id, v as version, timestamptz '2025-01-01Z' + v * interval '1 day' as updated_at, n.size_bytes, n.checksum, n.metadata
    from old.nodes n, generate_series(1, n.version - 1) v`);
  await client.query(`
    create table old.entries as
    select n.id, 'upload' as command, 'succeeded' as status, n.id as primary_node_id, 'someone' as principal,
      'key ' || n.id as idempotency_key, jsonb_build_object('path', n.name) as parameters, n.created_at, n.created_at as started_at, n.updated_at as completed_at
    from old.nodes n`);
  await client.query(
    "select filestore.reserve_ids('nodes', $1), filestore.reserve_ids('journal_entries', $1)",
    [first + 9 * nodes],
  );
  await client.query(
    `insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ($1, 's3', $1)`,
    [`bench-${mount}`],
  );
  await client.query('analyze old.nodes, old.versions, old.entries');
}

/** The rows as the tables have them: an import has to find out all of that. */
async function prepareRows(client: Client, mount: number): Promise<void> {
  await client.query(`
    create table old.finished_nodes as
    select r.*, m.id as mount_id, m.root_id, coalesce(r.parent_id, m.root_id) as directory_id,
      case when r.parent_id is null then '' else 'directory ' || (r.parent_id - n.first) end as directory
    from old.nodes r
    cross join (select min(id) - ${FILES_PER_DIRECTORY} as first from old.nodes) n
    cross join (
      select m.id, n.id as root_id from filestore.backend_mounts m
      join filestore.nodes n on n.root_of_mount_id = m.id where m.mount_key = 'bench-${mount}'
    ) m`);
}

async function insertRows(client: Client, mount: number): Promise<void> {
  const place = `
    f.mount_id, f.directory_id, f.directory, filestore.child_path(f.directory, f.name),
    cardinality(string_to_array(filestore.child_path(f.directory, f.name), '/')),
    case when f.kind = 'directory' then f.name end, true, f.name, f.kind, f.checksum, f.metadata, f.created_at`;
  const columns =
    'backend_mount_id, parent_id, parent_path, path, depth, directory_path, parent_live, name, kind, checksum, metadata, created_at';
  await client.query(`
    begin;
    set local session_replication_role = replica;
    insert into filestore.nodes (id, ${columns}, size_bytes, version, updated_at) overriding system value
    select f.id, ${place}, f.size_bytes, f.version, f.updated_at from old.finished_nodes f;
    insert into filestore.snapshots (valid_from, valid_to, live, state, id, ${columns}, size_bytes, version, updated_at)
    select v.updated_at, lead(v.updated_at, 1, f.updated_at) over (partition by v.id order by v.version), true, 'active',
      f.id, ${place}, v.size_bytes, v.version, v.updated_at
    from old.versions v join old.finished_nodes f on f.id = v.id;
    insert into filestore.journal_entries (id, backend_mount_id, command, status, primary_node_id, principal, idempotency_key,
      parameters, created_at, started_at, completed_at) overriding system value
    select e.id, f.mount_id, e.command, e.status, e.primary_node_id, e.principal, e.idempotency_key,
      e.parameters, e.created_at, e.started_at, e.completed_at
    from old.entries e join old.finished_nodes f on f.id = e.id;
    commit`);
  await client.query(`select filestore.recount_rollups('bench-${mount}')`);
}
