import { type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';
import type { DatabaseSubject } from '../subject.ts';

const OWN_FILE = 'src/dev/check/gates/node-columns.ts';

/** What the database fills, or what a node is by its place: each has rules of its own. */
const OWN = [
  ...['id', 'backend_mount_id', 'root_of_mount_id', 'parent_id', 'parent_path', 'parent_live', 'name'],
  ...['directory_path', 'kind', 'state', 'live', 'version', 'created_at', 'updated_at', 'deleted_at'],
];
/** They say that somebody looked, not that something changed. */
const HEARTBEATS = ['last_seen_at', 'last_reconciled_at'];
/** A role for as long as the gate looks. */
const SERVICE = 'check_node_columns_service';

interface Column {
  readonly name: string;
  /** What leaves the column out; null when nothing does. */
  readonly missing: readonly string[] | null;
}

// A trigger and a table name their columns in the catalog; of functions the text is all there is.
const CONTENT_COLUMNS = `
  with content as (
    select a.attname::text as name, a.attnum
    from pg_attribute a
    where a.attrelid = to_regclass('filestore.nodes') and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
      and a.attname <> all ($1)
  ),
  places (place, name) as (
    select 'trigger ' || t.tgname, c.name
    from content c join pg_trigger t on t.tgrelid = to_regclass('filestore.nodes')
    where t.tgname in ('nodes_prepare_update', 'nodes_record_version') and c.attnum <> all (t.tgattr)
    union all
    select 'function ' || p.proname, c.name
    from content c join pg_proc p on p.pronamespace = to_regnamespace('filestore')
    where p.proname in ('prepare_node_update', 'record_node_version', 'create_node', 'revert_node')
      and p.prosrc !~ format('\\m%s\\M', c.name)
    union all
    select 'relation ' || r.name, c.name
    from content c cross join (values ('snapshots'), ('view_filestore_node_versions')) r (name)
    where not exists (
      select from pg_attribute a
      where a.attrelid = to_regclass('filestore.' || r.name) and a.attname = c.name and not a.attisdropped)
    union all
    select format('function grant_access (%s by a service)', lower(g.privilege)), c.name
    from content c cross join (values ('INSERT'), ('UPDATE')) g (privilege)
    where not has_column_privilege('${SERVICE}', 'filestore.nodes', c.name, g.privilege)
  )
  select c.name, (select array_agg(p.place order by p.place) from places p where p.name = c.name) as missing
  from content c
  order by c.attnum`;

/** For a database that has everything applied. */
export const nodeColumns: Gate<DatabaseSubject> = {
  name: 'node columns',
  proves: 'every column of nodes that services write is counted as a version, kept, restored and granted',
  async look({ sources, client }) {
    const columns = await withServiceRole(client, async () => {
      const { rows } = await client.query<Column>(CONTENT_COLUMNS, [[...OWN, ...HEARTBEATS]]);
      return rows;
    });
    return judge(
      columns.flatMap(({ name, missing }) =>
        missing === null
          ? []
          : [
              {
                ...locate(sources, 'column', 'nodes', name),
                what: `column filestore.nodes.${name} is left out of ${missing.join(', ')}`,
                remedy: `Do as storage_class does there (grep -rl storage_class migrations/fixtures), and pull the changed fixtures in. A column that services never write is named in ${OWN_FILE}.`,
              },
            ],
      ),
    );
  },
};

async function withServiceRole<T>(client: DatabaseSubject['client'], work: () => Promise<T>): Promise<T> {
  await client.query(`create role ${SERVICE}`);
  await client.query(`select filestore.grant_access('${SERVICE}', 'service')`);
  const result = await work();
  await client.query(`drop owned by ${SERVICE}`);
  await client.query(`drop role ${SERVICE}`);
  return result;
}
