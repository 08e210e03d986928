import type { Client } from 'pg';
import type { Operation } from './operation.ts';
import { anyDirectory, anyMount } from './scene.ts';

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

/** Directories of a list whose totals are not the same when each is asked for alone, or whose children are not so many. */
const WRONG_IN_LIST = `
  select l.node_id as id, to_jsonb(l) as list, to_jsonb(t) as alone, c.children
  from filestore.list_totals($1) l
  cross join lateral filestore.directory_totals(l.node_id) t
  cross join lateral (select count(*) as children from filestore.nodes n where n.parent_id = l.node_id and n.live) c
  where (l.size_bytes, l.file_count, l.dir_count, l.child_count, l.consistency_state)
        is distinct from
        (t.size_bytes, t.file_count, t.dir_count, t.child_count, t.consistency_state)
     or l.child_count <> c.children`;

/** Readers of what is being written. What they see must be exact at any moment. */
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
      const directory = anyDirectory(scene, random);
      const size = random.between(1, 10);
      return {
        mountId: directory.mountId,
        parameters: {},
        // One snapshot, so that the pages can be held against the whole.
        isolation: 'repeatable read',
        async work(client, effects) {
          const paged = await allPages(client, directory.id, size);
          const { rows } = await client.query<{ id: string }>(
            'select id from filestore.nodes where parent_id = $1 and live order by name',
            [directory.id],
          );
          const whole = rows.map(({ id }) => id);
          const isRight = paged.join() === whole.join();
          effects.reading(isRight ? undefined : `pages of directory ${directory.id}: ${paged}, not ${whole}`);
        },
      };
    },
  },
];

async function allPages(client: Client, directoryId: string, size: number): Promise<readonly string[]> {
  const ids: string[] = [];
  let after = '';
  for (;;) {
    const { rows } = await client.query<{ id: string; name: string }>(
      'select id, name from filestore.list_directory($1, $2, $3)',
      [directoryId, after, size],
    );
    ids.push(...rows.map(({ id }) => id));
    const last = rows.at(-1);
    if (last === undefined || rows.length < size) return ids;
    after = last.name;
  }
}
