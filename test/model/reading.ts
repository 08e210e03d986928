import { anyNode, anyParent, type Choice, type Operation, statement } from './model-operation.ts';
import { isLive, isLiveDirectory, type Node, Refused } from './node.ts';

/** The first page of a directory, or of a node that is not a directory. */
export function callListDirectory(choice: Choice): Operation {
  const { model, random } = choice;
  const id = random.chance(0.3) ? anyNode(choice) : anyParent(choice);
  const withDeleted = random.chance(0.5);
  const pageSize = random.chance(0.05) ? 0 : random.pick([1, 2, 3, 100]);
  return statement(
    'list_directory',
    'select id from filestore.list_directory($1, page_size => $2, with_deleted => $3)',
    [id, pageSize, withDeleted],
    (rows) => {
      const directory = model.nodes.get(id);
      if (pageSize < 1) throw new Refused('FS422');
      if (directory?.kind !== 'directory' || !(withDeleted || isLive(directory))) throw new Refused('FS404');
      expectSame(
        rows.map((row) => row.id).join(),
        idsOf(children([...model.nodes.values()], id, withDeleted).slice(0, pageSize)),
      );
    },
  );
}

/** A page after every possible cursor, in every directory. */
export function callAllPages({ model, random }: Choice): Operation {
  const withDeleted = random.chance(0.7);
  const pageSize = random.pick([1, 2, 3]);
  const all = [...model.nodes.values()];
  const cursors = all.filter((node) => {
    const parent = model.nodes.get(node.parentId ?? 0);
    return parent !== undefined && (withDeleted || isLiveDirectory(parent));
  });
  return statement(
    withDeleted ? 'all pages, deleted too' : 'all pages',
    `select string_agg(format('%s: %s', c.id, p.ids), ' ' order by c.id) as found
     from unnest($1::bigint[], $2::bigint[], $3::text[]) c (id, parent_id, name)
     cross join lateral (
       select string_agg(l.id::text, ',' order by l.ordinality) as ids
       from filestore.list_directory(c.parent_id, c.name, $4, $5, c.id) with ordinality l
     ) p`,
    [
      cursors.map(({ id }) => id),
      cursors.map(({ parentId }) => parentId),
      cursors.map(({ name }) => name),
      pageSize,
      withDeleted,
    ],
    ([row]) => {
      const pages = cursors
        .sort((one, other) => one.id - other.id)
        .map((cursor) => {
          const later = children(all, cursor.parentId, withDeleted).filter((node) => isAfter(node, cursor));
          return `${cursor.id}: ${idsOf(later.slice(0, pageSize))}`;
        });
      expectSame(row?.found ?? '', pages.join(' '));
    },
  );
}

/** The node at each path, or the last tombstone there. */
export function callNodeByPath({ model, random }: Choice): Operation {
  const withDeleted = random.chance(0.7);
  const all = [...model.nodes.values()];
  const keyOf = (node: Node) => model.mounts.find((mount) => mount.id === node.mountId)?.key;
  return statement(
    withDeleted ? 'all paths, deleted too' : 'all paths',
    `select string_agg(n.id::text, ',' order by c.id) as found
     from unnest($1::bigint[], $2::text[], $3::text[]) c (id, key, path)
     cross join lateral filestore.node_by_path(c.key, c.path, $4) n`,
    [all.map(({ id }) => id), all.map(keyOf), all.map(({ path }) => path), withDeleted],
    ([row]) => {
      const last = all
        .sort((one, other) => one.id - other.id)
        .flatMap(({ mountId, path }) => {
          const there = all.filter((node) => node.mountId === mountId && node.path === path);
          const dead = there
            .filter((node) => !isLive(node))
            .sort((one, other) => (isLater(model, one, other) ? -1 : 1));
          return there.find(isLive) ?? (withDeleted ? dead[0] : undefined) ?? [];
        });
      expectSame(row?.found ?? '', idsOf(last));
    },
  );
}

type Place = Pick<Node, 'name' | 'id'>;

function isAfter(one: Place, other: Place): boolean {
  return one.name === other.name ? one.id > other.id : one.name > other.name;
}

function isLater(model: Choice['model'], one: Node, other: Node): boolean {
  const [a = '', b = ''] = [one, other].map((node) => model.momentOf(node.deletion ?? 0));
  return a === b ? one.id > other.id : a > b;
}

function children(all: readonly Node[], parentId: number | null, withDeleted: boolean): readonly Node[] {
  return all
    .filter((node) => node.parentId === parentId && (withDeleted || isLive(node)))
    .sort((one, other) => (isAfter(one, other) ? 1 : -1));
}

const idsOf = (nodes: readonly Node[]): string => nodes.map(({ id }) => id).join();

function expectSame(found: string, expected: string): void {
  if (found !== expected) throw new Error(`returned "${found}" instead of "${expected}"`);
}
