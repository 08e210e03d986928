import type { Client, QueryResult } from 'pg';
import { anyDirectory, anyMount } from './known-nodes.ts';
import type { Operation } from './torture-operation.ts';

const TOTALS = `
  select t.*, e.size_bytes as expected_size, e.files as expected_files, e.dirs as expected_dirs, e.children as expected_children
  from filestore.directory_totals($1) t
  cross join (
    select coalesce(sum(n.size_bytes), 0)::bigint as size_bytes,
           count(*) filter (where n.kind = 'file') as files,
           count(*) filter (where n.kind = 'directory') as dirs,
           count(*) filter (where n.parent_id = d.id) as children
    from filestore.nodes d
    join filestore.nodes n on n.backend_mount_id = d.backend_mount_id
    where d.id = $1 and d.live and n.live and n.parent_id is not null
      and (d.path = '' or (n.path >= d.path || '/' and n.path < d.path || '0'))
  ) e`;

/** Directories whose totals in list_totals differ from directory_totals, or whose child_count is wrong. */
const WRONG_IN_LIST = `
  select l.node_id as id, to_jsonb(l) as list, to_jsonb(t) as alone, c.children
  from filestore.list_totals($1) l
  cross join lateral filestore.directory_totals(l.node_id) t
  cross join lateral (select count(*) as children from filestore.nodes n where n.parent_id = l.node_id and n.live) c
  where (l.size_bytes, l.file_count, l.dir_count, l.child_count, l.consistency_state)
        is distinct from
        (t.size_bytes, t.file_count, t.dir_count, t.child_count, t.consistency_state)
     or l.child_count <> c.children`;

const BY_PATH = `
  select found.id as found, there.id as expected
  from filestore.nodes n
  join filestore.backend_mounts m on m.id = n.backend_mount_id
  left join lateral filestore.node_by_path(m.mount_key, n.path, true) found on true
  left join lateral (
    select t.id
    from filestore.nodes t
    where t.backend_mount_id = n.backend_mount_id and t.path = n.path
    order by t.live desc, t.deleted_at desc, t.id desc
    limit 1
  ) there on true
  where n.id = $1`;

/** Half a second ago, in whole milliseconds: some nodes have been seen since, and some have not. */
const UNSEEN = `
  select moment.since::text, array(
    select n.id
    from filestore.nodes n
    left join filestore.node_sightings s on s.node_id = n.id
    where n.backend_mount_id = $1 and n.live and n.parent_id is not null
      and n.created_at < moment.since and (s.last_seen_at is null or s.last_seen_at < moment.since)
    order by n.path
  ) as ids
  from (select date_trunc('milliseconds', clock_timestamp()) - interval '500 ms' as since) moment`;

/** Readers of concurrent writes. Their results must be exact at any moment. */
export const READS: readonly Operation[] = [
  {
    kind: 'directory_totals',
    weight: 8,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const gone = scene.tombstones.filter((node) => node.kind === 'directory');
      const directory = (random.chance(0.1) ? random.pick(gone) : undefined) ?? anyDirectory(scene, random);
      return {
        mountId: directory.mountId,
        parameters: {},
        async work(client, effects) {
          const { rows } = await client.query<Record<string, string>>(TOTALS, [directory.id]);
          const [row] = rows;
          if (row === undefined) return;
          const isRight =
            row.size_bytes === row.expected_size &&
            row.file_count === row.expected_files &&
            row.dir_count === row.expected_dirs &&
            row.child_count === row.expected_children;
          effects.reading(isRight ? undefined : `totals of node ${directory.id}: ${JSON.stringify(row)}`);
        },
      };
    },
  },
  {
    kind: 'list_totals',
    weight: 2,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const gone = scene.tombstones.filter((node) => node.kind === 'directory');
      const directories = Array.from({ length: random.between(1, 20) }, () =>
        anyDirectory(scene, random, anyMount(scene, random)),
      );
      const ids = [...directories, ...gone.slice(0, 2)].map(({ id }) => id);
      return {
        mountId: directories[0]?.mountId ?? '',
        parameters: {},
        async work(client, effects) {
          const { rows } = await client.query(WRONG_IN_LIST, [ids]);
          const isRight = rows.length === 0;
          effects.reading(isRight ? undefined : `list of totals: ${JSON.stringify(rows)}`);
        },
      };
    },
  },
  {
    kind: 'list_directory',
    weight: 3,
    journalled: false,
    expected: ['FS404'],
    plan(scene, random) {
      const withDeleted = random.chance(0.5);
      const gone = scene.tombstones.filter((node) => node.kind === 'directory');
      const directory =
        (withDeleted && random.chance(0.2) ? random.pick(gone) : undefined) ?? anyDirectory(scene, random);
      const size = random.between(1, 10);
      return {
        mountId: directory.mountId,
        parameters: {},
        // One snapshot, so that the pages can be compared with the whole list.
        isolation: 'repeatable read',
        async work(client, effects) {
          const paged = await allPages(client, directory.id, size, withDeleted);
          const { rows } = await client.query<{ id: string }>(
            'select id from filestore.nodes where parent_id = $1 and (live or $2) order by name, id',
            [directory.id, withDeleted],
          );
          const whole = rows.map(({ id }) => id);
          const isRight = paged.join() === whole.join();
          effects.reading(isRight ? undefined : `pages of directory ${directory.id}: ${paged}, not ${whole}`);
        },
      };
    },
  },
  {
    kind: 'node_by_path',
    weight: 3,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const node = random.pick([...scene.files, ...scene.directories, ...scene.tombstones]);
      if (node === undefined) return undefined;
      return {
        mountId: node.mountId,
        parameters: {},
        isolation: 'repeatable read',
        async work(client, effects) {
          const { rows } = await client.query<Record<string, string | null>>(BY_PATH, [node.id]);
          const wrong = rows.filter((row) => row.found !== row.expected);
          effects.reading(
            wrong.length === 0 ? undefined : `node at the path of ${node.id}: ${JSON.stringify(wrong)}`,
          );
        },
      };
    },
  },
  {
    kind: 'list_unseen',
    weight: 1,
    journalled: false,
    expected: [],
    plan(scene, random) {
      const mount = anyMount(scene, random);
      const size = random.between(5, 50);
      return {
        mountId: mount.id,
        parameters: {},
        isolation: 'repeatable read',
        async work(client, effects) {
          const { rows } = await client.query<{ since: string; ids: readonly string[] }>(UNSEEN, [mount.id]);
          const [whole] = rows;
          if (whole === undefined) return;
          const walked = await allUnseen(client, mount.key, whole.since, size);
          const isRight = walked.join() === whole.ids.join();
          effects.reading(isRight ? undefined : `unseen on mount ${mount.id}: ${walked}, not ${whole.ids}`);
        },
      };
    },
  },
];

async function allPages(
  client: Client,
  directoryId: string,
  size: number,
  withDeleted: boolean,
): Promise<readonly string[]> {
  const ids: string[] = [];
  let after: { readonly id: string; readonly name: string } | undefined;
  for (;;) {
    const { rows } = await client.query<{ id: string; name: string }>(
      'select id, name from filestore.list_directory($1, $2, $3, $4, $5)',
      [directoryId, after?.name, size, withDeleted, after?.id],
    );
    ids.push(...rows.map(({ id }) => id));
    const last = rows.at(-1);
    if (last === undefined || rows.length < size) return ids;
    after = last;
  }
}

async function allUnseen(
  client: Client,
  key: string,
  since: string,
  size: number,
): Promise<readonly string[]> {
  const ids: string[] = [];
  let after: string | null = '';
  while (after !== null) {
    const { rows }: QueryResult<{ node_ids: readonly string[]; next_path: string | null }> =
      await client.query('select * from filestore.list_unseen($1, $2, $3, $4)', [key, since, after, size]);
    ids.push(...(rows[0]?.node_ids ?? []));
    after = rows[0]?.next_path ?? null;
  }
  return ids;
}
