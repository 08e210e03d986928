import type { Break } from './breaks-of-nodes.ts';

/** Nothing is off: the table has no trigger against its owner, or the trigger allows it. */
const off = 'nothing';
const SETTINGS = { labels: '{"apiKey": "x"}', config: '{"password": "x"}' };
const DEEP = `(repeat('{"a":', 33) || '1' || repeat('}', 33))::jsonb`;
const LONG = "jsonb_build_object('a', (select jsonb_agg('1e131071'::jsonb) from generate_series(1, 4000)))";

export const BREAKS_OF_TOTALS: readonly Break[] = [
  {
    rule: 'a node has at most one row of sightings',
    what: 'a sighting of a node that does not exist',
    off,
    sql: ['insert into filestore.node_sightings (node_id) values (999999)'],
    named: ['sighting of no node'],
  },
  {
    rule: 'a sighting never goes back in time',
    what: 'a sighting in the future, which no later one can replace',
    off,
    sql: ["update filestore.node_sightings set last_seen_at = 'infinity' where node_id = :f"],
    named: ['sighting in the future'],
  },
  {
    rule: 'a sighting never goes back in time',
    what: 'sightings that are lost or earlier',
    off: 'node_sightings_refuse_truncate',
    sql: [
      "update filestore.node_sightings set last_seen_at = '2020-01-01' where node_id = :f",
      'truncate filestore.node_sightings',
    ],
    named: [],
  },
  {
    rule: 'one row per directory',
    what: 'totals that are missing',
    off,
    sql: ['delete from filestore.rollups where node_id = :b'],
    named: ['wrong totals'],
  },
  {
    rule: 'one row per directory',
    what: 'totals of a file and of nothing',
    off,
    sql: ['insert into filestore.rollups (node_id) values (:f), (999998)'],
    named: ['totals of no directory'],
  },
  {
    rule: 'one row per directory',
    what: 'truncated totals',
    off: 'rollups_refuse_truncate',
    sql: ['truncate filestore.rollups'],
    named: ['wrong totals'],
  },
  {
    rule: 'totals that are stale stay so',
    what: 'stale totals that are said to be up to date',
    off: 'rollups_guard_stale',
    sql: [
      "update filestore.rollups set consistency_state = 'stale' where node_id = :b",
      "update filestore.rollups set consistency_state = 'up_to_date' where node_id = :b",
    ],
    named: [],
  },
  ...[
    'size_bytes = 6',
    'file_count = -1',
    'dir_count = 7',
    'child_count = 0',
    "size_bytes = 'NaN'",
    "size_bytes = 'Infinity'",
  ].map(
    (change): Break => ({
      rule: 'folded and pending totals together',
      what: `totals with ${change}`,
      off,
      sql: [`update filestore.rollups set ${change} where node_id = :b`],
      named: ['wrong totals'],
    }),
  ),
  {
    rule: 'folded and pending totals together',
    what: 'a size that is wrong',
    sql: ['update filestore.nodes set size_bytes = 6 where id = :f'],
    named: ['wrong totals'],
  },
  {
    rule: 'folded and pending totals together',
    what: 'truncated deltas',
    off: 'rollup_deltas_refuse_truncate',
    sql: ['update filestore.nodes set size_bytes = 7 where id = :f', 'truncate filestore.rollup_deltas'],
    named: ['wrong totals'],
  },
  ...Object.entries({ '0': [':f'], '9': ['999999'], "'NaN'": [':f', '999999'] }).map(
    ([size, ids]): Break => ({
      rule: 'folded and pending totals together',
      what: `deltas of ${size} bytes of ${ids.join(' and ').replace(':f', 'a file').replace('999999', 'a directory that does not exist')}`,
      off,
      sql: ids.map(
        (id) =>
          `insert into filestore.rollup_deltas (backend_mount_id, directory_id, size_delta, file_delta, dir_delta, child_delta)
           values (:mount, ${id}, ${size}, 0, 0, 0)`,
      ),
      named: ids.length === 2 ? ['delta of no directory', 'wrong totals'] : ['delta of no directory'],
    }),
  ),
];

export const BREAKS_OF_MOUNTS: readonly Break[] = [
  ...Object.entries(SETTINGS).map(
    ([column, value]): Break => ({
      rule: 'no secret in its settings and texts',
      what: `a secret in ${column}`,
      off: 'backend_mounts_prepare',
      sql: [`update filestore.backend_mounts set ${column} = '${value}' where id = :other`],
      named: ['secret in a mount'],
    }),
  ),
  ...[DEEP, LONG].map(
    (value, index): Break => ({
      rule: 'no secret in its settings and texts',
      what: `settings that ${['nest too deeply to be searched', 'are too long as text'][index]}`,
      off: 'backend_mounts_prepare',
      sql: [`update filestore.backend_mounts set config = ${value} where id = :other`],
      named: ['settings too big'],
    }),
  ),
  {
    rule: 'a mount has the root node of its tree',
    what: 'a mount that got no root',
    off: 'backend_mounts_create_root',
    sql: [
      "insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('new', 's3', 'bucket')",
    ],
    named: ['mount without a root'],
  },
  {
    rule: 'a mount can be deleted when its only node is its root',
    what: 'nodes and a scan whose mount does not exist',
    sql: ['delete from filestore.backend_mounts where id = :mount'],
    named: ['nodes of no mount', 'scan of no mount'],
    chosen: { key: "'again'", place: "'/again'" },
  },
  {
    rule: 'a mount can be deleted when its only node is its root',
    what: 'truncated tables of mounts and nodes',
    off: 'backend_mounts_refuse_truncate nodes_refuse_truncate',
    sql: ['truncate filestore.backend_mounts cascade'],
    named: ['history of no node', 'sighting of no node', 'totals of no directory'],
  },
  {
    rule: '`id`, `backend_kind`, `created_at` never change',
    what: 'a mount with another kind, version and creation, and a name that only its new kind can have',
    sql: [
      `update filestore.backend_mounts
       set backend_kind = 's3', root_path = null, bucket = 'bucket', version = 7, created_at = '2020-01-01' where id = :mount`,
      `update filestore.nodes set name = repeat('x', 300), path = 'a/b/' || repeat('x', 300) where id = :f`,
    ],
    named: [],
  },
  {
    rule: 'a mount that [moves to another server]',
    what: 'a mount that is held without a move, while another one moves',
    off,
    sql: [
      `insert into filestore.moves (written_by, mount_id, mount_key, source_number, target_number, step, timeline)
       select filestore.database_number(), id, mount_key, filestore.database_number(), 7, 'copying', 'x'
       from filestore.backend_mounts where id = :other`,
      'update filestore.backend_mounts set held_by = 7 where id = :mount',
    ],
    named: ['guard switched off', 'held by no move'],
  },
  {
    rule: 'a mount that [moves to another server]',
    what: 'a mount that is erased while it is active',
    off,
    sql: ['update filestore.backend_mounts set erasing_since = now() where id = :mount'],
    named: ['active while it is erased'],
  },
  {
    rule: 'running scans of one mount do not overlap',
    what: 'scans that overlap',
    off,
    sql: ["insert into filestore.scans (backend_mount_id, directory_id, path) values (:mount, :b, 'a/b')"],
    named: ['scans that overlap'],
  },
  {
    rule: 'a scan whose entries a crash lost is never applied',
    what: 'a scan without its entries',
    off,
    sql: ['truncate filestore.scan_entries'],
    named: [],
  },
];

export const BREAKS_OF_RECORDS: readonly Break[] = [
  {
    rule: 'a step comes after the one before it',
    what: 'a move that no server has begun',
    off,
    sql: [
      `insert into filestore.moves (written_by, mount_id, mount_key, source_number, target_number, step, timeline, finished_at)
       values (0, :mount, 'x', 0, 7, 'finished', '', now())`,
    ],
    named: [],
  },
  {
    rule: 'only the functions of scans write these tables',
    what: 'a change of no scan',
    off,
    sql: [
      "insert into filestore.scan_changes (scan_id, number, kind, action, path) values (404, 1, 'file', 'create', 'x')",
    ],
    named: [],
  },
  {
    rule: 'a role has one of three levels',
    what: 'a level of no role',
    off,
    sql: ["insert into filestore.access_levels (role_name, role_oid, level) values ('gone', 1, 'reader')"],
    named: [],
  },
  {
    rule: 'a level belongs to one role of one cluster',
    what: 'a level of another role of that name',
    off,
    sql: [
      "insert into filestore.access_levels (role_name, role_oid, level) values (current_user, 1, 'reader')",
    ],
    named: [],
  },
  {
    rule: '`backfills` is the progress of each backfill',
    what: 'a backfill that did not run',
    off,
    sql: [
      "insert into filestore.backfills (table_name, column_name, expression, finished_at) values ('nodes', 'metadata', '', now())",
    ],
    named: [],
  },
  {
    rule: 'tombstones, versions, history and ended entries',
    what: 'an import that did not run',
    off,
    sql: [
      'insert into filestore.imports (backend_mount_id, takes_nodes, finished_at) values (:mount, true, now())',
    ],
    named: [],
  },
];
