import type { Client } from 'pg';
import { generateDisk, RENAMED } from './generated-disk.ts';

/** How the ids of a mount compare with the truth after the disk has changed. */
export interface IdsAfterChanges {
  /** Nodes whose object still exists. */
  readonly objects: number;
  /** Of these, nodes that are at the path of their object. */
  readonly kept: number;
  /** Live nodes at the path of another object than theirs. */
  readonly wrong: number;
}

/** Remembers the ids of a mount, before the disk changes. */
export async function rememberIds(client: Client, mountKey: string): Promise<void> {
  await client.query('create schema if not exists bench');
  await client.query('drop table if exists bench.nodes_before');
  await client.query(
    `create table bench.nodes_before as
     select n.id, n.path
     from filestore.nodes n
     join filestore.backend_mounts m on m.id = n.backend_mount_id
     where m.mount_key = '${mountKey}' and n.live and n.path <> ''`,
  );
}

/** Compares the ids of a mount with those that were remembered, by what the generator changed on the disk. */
export async function compareIds(client: Client, nodes: number): Promise<IdsAfterChanges> {
  const changed = [...listChangedPaths(nodes)];
  const { rows } = await client.query<{ objects: number; kept: number; wrong: number }>(
    `with changed as (
       select before, after
       from jsonb_to_recordset($1) as c (before text, after text)
     ),
     truth as (
       select
         b.id,
         case
           when c.before is not null then c.after
           when b.path = $2 or starts_with(b.path, $2 || '/') then $3 || substr(b.path, length($2) + 1)
           else b.path
         end as path
       from bench.nodes_before b
       left join changed c on c.before = b.path
     )
     select
       (count(t.path))::integer                                                        as objects,
       (count(*) filter (where n.path = t.path and n.state = 'active'))::integer        as kept,
       (count(*) filter (where n.state = 'active' and n.path is distinct from t.path))::integer as wrong
     from truth t
     left join filestore.nodes n on n.id = t.id and n.live`,
    [JSON.stringify(changed), RENAMED.from, RENAMED.to],
  );
  const [found] = rows;
  if (found === undefined) throw new Error('the comparison of ids has no result');
  return found;
}

/** The paths that changed, apart from those that only changed with the directory that is renamed. */
function* listChangedPaths(nodes: number) {
  for (const { before, after } of generateDisk(nodes)) {
    if (before === null || before.path === after?.path) continue;
    const withDirectory = before.path.startsWith(RENAMED.from)
      ? RENAMED.to + before.path.slice(RENAMED.from.length)
      : null;
    if (after === null || after.path !== withDirectory)
      yield { before: before.path, after: after?.path ?? null };
  }
}
