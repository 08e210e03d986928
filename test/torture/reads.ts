import type { Client } from 'pg';
import type { Operation } from './operation.ts';
import { anyDirectory } from './scene.ts';

const TOTALS = `
  select t.size_bytes, t.file_count, t.dir_count, e.size_bytes as expected_size, e.files as expected_files, e.dirs as expected_dirs
  from filestore.directory_totals($1) t
  cross join (
    select coalesce(sum(n.size_bytes), 0)::bigint as size_bytes,
           count(*) filter (where n.kind = 'file') as files,
           count(*) filter (where n.kind = 'directory') as dirs
    from filestore.nodes d
    join filestore.nodes n on n.backend_mount_id = d.backend_mount_id
    where d.id = $1 and d.live and n.live and n.parent_id is not null
      and (d.path = '' or (n.path >= d.path || '/' and n.path < d.path || '0'))
  ) e`;

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
            row.dir_count === row.expected_dirs;
          effects.reading(isRight ? undefined : `totals of node ${directory.id}: ${JSON.stringify(row)}`);
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
