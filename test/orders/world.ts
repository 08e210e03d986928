import type { Client } from 'pg';

/** A small catalogue in a database, which is put back before each run, with the same ids. */
export interface World {
  /** A superuser's connection, which watches the sessions and reads the result. */
  readonly watcher: Client;
  readonly url: string;
  /** The role of each level. */
  readonly roles: Readonly<Record<string, string>>;
  /** Replaces `<a/f>` by the id of what has this name. */
  readonly fillIn: (text: string) => string;
  /** States that were found to break no rule. */
  readonly sound: Set<string>;
}

const call = (text: string) => `select from filestore.${text}`;

/** What a first import has brought into the mount z. */
const IMPORTED = `
create schema old;
create table old.nodes as
select * from (values
  (510, 'i', 'file', 5, 5, '2025-01-01Z'::timestamptz, '2025-05-01Z'::timestamptz, null::timestamptz),
  (511, 'd', 'directory', 1, 0, '2025-01-01Z', '2025-01-01Z', null),
  (512, 'd/g', 'file', 1, 3, '2025-01-01Z', '2025-01-01Z', null)
) as n (id, path, kind, version, size_bytes, created_at, updated_at, deleted_at);
create table old.versions as
select 510 as id, version, version as size_bytes, make_timestamptz(2025, version, 1, 0, 0, 0) as updated_at
from generate_series(3, 4) version;
call filestore.import_nodes('z', 'old.nodes', 'old.versions')`;

/** What the next one brings: a new version, versions before the known ones, a file that has moved, and tombstones. */
const STAGED = `
update old.nodes set version = 6, size_bytes = 6, updated_at = '2025-06-01Z' where id = 510;
update old.nodes set path = 'x/g', version = 2, updated_at = '2025-06-01Z' where id = 512;
insert into old.nodes values
  (500, 'past', 'directory', 2, 0, '2025-01-01Z', '2025-02-01Z', '2025-02-01Z'),
  (501, 'past/f', 'file', 2, 7, '2025-01-01Z', '2025-02-01Z', '2025-02-01Z'),
  (502, 'x/f', 'file', 1, 8, '2025-01-01Z', '2025-01-01Z', null);
insert into old.versions
select 510, version, version, make_timestamptz(2025, version, 1, 0, 0, 0) from unnest(array[1, 2, 5]) version`;

/** Trees, tombstones, old versions, pending deltas, commands in each status, and a scan with entries. */
const CONTENT: readonly string[] = [
  ...['m', 'n', 'z'].map((key) =>
    call(`create_mount('{"mount_key": "${key}", "backend_kind": "local", "root_path": "/${key}"}')`),
  ),
  ...['a/s', 'b/s', 'e', 'gone'].map((path) => call(`ensure_directory('m', '${path}')`)),
  ...['a/f', 'a/g', 'a/s/h', 'a/dead', 'b/f', 'gone/x', 'lost'].map((path, at) =>
    call(`upsert_file('m', '${path}', ${10 + at}, metadata => '{"k": ${at}}')`),
  ),
  ...['x/y', 'x/dead', 'w'].map((path) => call(`upsert_file('z', '${path}', 3)`)),
  call("upsert_file('n', 't', 4)"),
  "update filestore.nodes set size_bytes = 40 where path = 'a/g'",
  "update filestore.nodes set name = 'g2' where path = 'a/g'",
  "update filestore.nodes set name = 'g' where path = 'a/g2'",
  "update filestore.nodes set state = 'missing' where path = 'lost'",
  "update filestore.nodes set state = 'deleted' where path in ('a/dead', 'x/dead', 't')",
  call("delete_node((select id from filestore.node_by_path('m', 'gone')), recursive => true)"),
  ...IMPORTED.split(';\n'),
  ...STAGED.split(';\n'),
  call('fold_rollups()'),
  // Deltas of an empty mount, which add up to zero.
  call("upsert_file('n', 'u', 4)"),
  "update filestore.nodes set state = 'deleted' where path = 'u'",
  "delete from filestore.nodes where path in ('t', 'u')",
  "update filestore.nodes set size_bytes = 50 where path = 'a/s/h'",
  call("record_sightings(array(select id from filestore.nodes where path in ('a/f', 'a')), now(), now())"),
  "update filestore.backend_mounts set state = 'inactive' where mount_key = 'z'",
  ...['job', 'lost job'].map((name) => call(`begin_command('${name}', idempotency_key => '${name}')`)),
  call("begin_command('queued', queue => true)"),
  call("begin_command('done', idempotency_key => 'done')"),
  "select filestore.finish_command(id, 'succeeded') from filestore.journal_entries where command = 'done'",
  call("begin_scan('m', 'b')"),
  `select filestore.record_entries(id, '[{"path": "f", "size_bytes": 6}, {"path": "new", "size_bytes": 7},
     {"path": "d/deep", "size_bytes": 8}]') from filestore.scans`,
  // One call before it records sightings.
  call("begin_scan('n')"),
  ...Array.from({ length: 1 }, () => 'select filestore.apply_scan(max(id)) from filestore.scans'),
];

/** The mount m is ready for its cut-over. No target reads the log. */
const MOVE: readonly string[] = [
  'call filestore.prepare_moves(true)',
  call("start_move('m', 7)"),
  `update filestore.moves set step = 'proved', mark = 1, marked_at = now(), early_digest = '{}'`,
  "create or replace function filestore.require_reader(move filestore.moves) returns void language sql as ''",
];

/** What a name in the text of an operation stands for: a node by its path, `~` before that of a tombstone, a mount's root, … */
const NAMES = `
  select case when m.mount_key = 'm' then '' else m.mount_key || ':' end
         || case when n.live then '' else '~' end || case when n.path = '' then '/' else n.path end as name, n.id
  from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
  union all select 'mount ' || mount_key, id from filestore.backend_mounts
  union all select 'command ' || command, id from filestore.journal_entries
  union all select 'scan ' || m.mount_key, s.id from filestore.scans s join filestore.backend_mounts m on m.id = s.backend_mount_id`;

/** Fills an empty migrated database. */
export async function createWorld(
  watcher: Client,
  url: string,
  roles: Readonly<Record<string, string>>,
  isMoving = false,
): Promise<World> {
  for (const [level, role] of Object.entries(roles)) {
    if (level !== 'spare') await watcher.query('select filestore.grant_access($1, $2)', [role, level]);
  }
  for (const statement of [...CONTENT, ...(isMoving ? MOVE : [])]) await watcher.query(statement);
  await watcher.query('create schema orders');
  const { rows: tables } = await watcher.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'r' order by 1`,
  );
  for (const { name } of tables) {
    await watcher.query(`create table orders.${name} as table filestore.${name}`);
  }
  const { rows: sequences } = await watcher.query<{ name: string }>(
    `select c.relname as name from pg_class c where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'S'`,
  );
  // As a replica, so that no trigger and no foreign key sees it.
  await watcher.query(`
    create function orders.reset() returns void language plpgsql set session_replication_role = replica as $$
    begin
      ${tables.map(({ name }) => `delete from filestore.${name};`).join(' ')}
      ${tables.map(({ name }) => `insert into filestore.${name} overriding system value table orders.${name};`).join(' ')}
      ${sequences.map(({ name }) => `perform setval('filestore.${name}', 1000);`).join(' ')}
    end $$`);
  await watcher.query('analyze');
  // A deadlock is an outcome, which should not take a second: the session that closes the circle is refused. Compiling a
  // query takes longer than this catalogue.
  await watcher.query(`
    do $$ begin
      execute format('alter database %I set deadlock_timeout = ''1ms''', current_database());
      execute format('alter database %I set jit = off', current_database());
    end $$`);
  await watcher.query('set jit = off');
  const { rows } = await watcher.query<{ name: string; id: string }>(NAMES);
  const ids = new Map(rows.map(({ name, id }) => [name, id]));
  return {
    watcher,
    url,
    roles,
    sound: new Set(),
    fillIn: (text) =>
      text.replace(/<([^<>=]+)>/g, (_, name: string) => {
        const id = ids.get(name) ?? roles[name];
        if (id === undefined) throw new Error(`The world has nothing called "${name}": ${text}`);
        return id;
      }),
  };
}

export const reset = async ({ watcher }: World) => {
  await watcher.query('select orders.reset()');
};

/** The id of a node or entry that the world had, or that it is new: new ids depend on the order. */
const WHO = (id: string) => `case when ${id} > 1000 then 'new' else ${id}::text end`;
/** A moment of the world, or that it is later. */
const WHEN = (moment: string) =>
  `case when ${moment} > (select max(updated_at) from orders.nodes) then 'later' else ${moment}::text end`;

/** All that two equal results have in common, as lines. Those that begin with `_` may differ, but rules read them. */
const PICTURE = `
  select format('node %s:%s %s of %s: %s %s %s, %s bytes, %s, identity %s, seen %s, compared %s, deleted with %s',
      n.backend_mount_id, n.path, ${WHO('n.id')}, ${WHO('n.parent_id')}, n.kind, n.state, n.version, n.size_bytes, n.metadata, n.backend_identity,
      ${WHEN('s.last_seen_at')}, ${WHEN('s.last_reconciled_at')},
      (select min(t.path) from filestore.nodes t where t.deleted_at = n.deleted_at and t.backend_mount_id = n.backend_mount_id)) as line
  from filestore.nodes n left join filestore.node_sightings s on s.node_id = n.id
  union all
  select format('version of %s: %s %s %s %s, %s bytes, %s, by %s', ${WHO('s.id')}, s.version, s.path, s.state, s.live, s.size_bytes, s.metadata, ${WHO('s.superseded_by_journal_id')})
  from filestore.snapshots s
  union all
  select format('totals %s:%s %s bytes, %s files, %s directories, %s children', d.backend_mount_id, d.path, d.size_bytes, d.file_count, d.dir_count, d.child_count)
  from filestore.view_filestore_directories d
  union all
  select format('mount %s %s, version %s, %s, erasing %s, held by %s', m.mount_key, m.state, m.version, m.labels, m.erasing_since is not null, m.held_by)
  from filestore.backend_mounts m
  union all
  select format('command %s %s: %s %s %s %s', ${WHO('j.id')}, j.command, j.status, j.idempotency_key, j.result, j.error)
  from filestore.journal_entries j
  union all
  select format('scan %s: %s', ${WHO('s.id')}, to_jsonb(s) - '{id, directory_id, journal_entry_ids, started_at, ended_at, expires_at, plans}'::text[])
  from filestore.scans s
  union all
  select format('move %s: %s', m.mount_key, m.step) from filestore.moves m
  union all
  select format('level %s %s', role_name, level) from filestore.access_levels
  union all
  select format('_deltas of %s: %s %s %s %s', ${WHO('d.directory_id')}, sum(d.size_delta), sum(d.file_delta), sum(d.dir_delta), sum(d.child_delta))
  from filestore.rollup_deltas d group by d.directory_id
  union all
  select format('_folded of %s: %s %s %s %s', ${WHO('r.node_id')}, r.size_bytes, r.file_count, r.dir_count, r.child_count)
  from filestore.rollups r
  union all
  select format('_seams of %s: %s', v.id, string_agg(case when v.valid_from = v.before then 'tight' else 'loose' end, ' '))
  from (select id, valid_from, lag(valid_to) over (partition by id order by version) as before from filestore.view_filestore_node_versions) v
  where v.before is not null group by v.id
  union all
  select format('_sighting of %s', node_id) from filestore.node_sightings
  order by 1`;

/** Totals by a plain reading, and versions that name a command which never was. */
const PLAIN = `
  select format('totals of "%s" are %s bytes, %s files, %s directories, %s children instead of %s, %s, %s, %s', d.path,
                d.size_bytes, d.file_count, d.dir_count, d.child_count, p.bytes, p.files, p.directories, p.children) as line
  from filestore.view_filestore_directories d
  cross join lateral (
    select coalesce(sum(n.size_bytes) filter (where n.kind = 'file'), 0) as bytes,
      count(*) filter (where n.kind = 'file') as files, count(*) filter (where n.kind = 'directory') as directories,
      count(*) filter (where n.parent_id = d.id) as children
    from filestore.nodes n
    where n.live and n.backend_mount_id = d.backend_mount_id and n.id <> d.id and (d.path = '' or n.path like d.path || '/%')
  ) p
  where d.backend_mount_id not in (select id from filestore.backend_mounts where erasing_since is not null)
    and (d.size_bytes, d.file_count, d.dir_count, d.child_count) is distinct from (p.bytes, p.files, p.directories, p.children)
  union all
  select format('version %s of node %s names command %s, which is not there', s.version, s.id, s.superseded_by_journal_id)
  from filestore.snapshots s
  where s.superseded_by_journal_id not in (select id from filestore.journal_entries)
  union all
  select to_jsonb(c)::text from filestore.check_integrity() c`;

export interface State {
  readonly picture: readonly string[];
  /** Rules that the rows break, before and after all deltas are folded. */
  readonly faults: readonly string[];
}

export async function readState({ watcher, sound }: World): Promise<State> {
  const linesOf = async (text: string) =>
    (await watcher.query<{ line: string }>(text)).rows.map(({ line }) => line);
  const lines = await linesOf(PICTURE);
  const picture = lines.filter((line) => !line.startsWith('_'));
  const key = lines.join('\n');
  if (sound.has(key)) return { picture, faults: [] };
  const faults = await linesOf(PLAIN);
  await watcher.query('select filestore.fold_rollups()');
  faults.push(...(await linesOf(PLAIN)).map((line) => `after a fold: ${line}`));
  if (faults.length === 0) sound.add(key);
  return { picture, faults };
}
