import { isLive, type Node, Refused } from './node.ts';
import {
  anyName,
  anyNode,
  anyParent,
  type Choice,
  type Operation,
  type Rows,
  statement,
} from './operation.ts';

/** A page of a directory, from any place of it on. */
export function callListDirectory(choice: Choice): Operation {
  const { model, random } = choice;
  const id = random.chance(0.3) ? anyNode(choice) : anyParent(choice);
  const withDeleted = random.chance(0.6);
  const pageSize = random.chance(0.02) ? 0 : random.pick([1, 2, 3, 100]);
  const below = [...model.nodes.values()].filter(
    (node) => node.parentId === id && (withDeleted || isLive(node)),
  );
  // The place of a child, or a name that perhaps no child has.
  const last = random.chance(0.5) && below.length > 0 ? random.pick(below) : undefined;
  const cursor = { name: last?.name ?? (random.chance(0.5) ? anyName(choice) : ''), id: last?.id ?? null };
  return statement(
    withDeleted ? 'list_directory, all' : 'list_directory',
    'select id from filestore.list_directory($1, $2, $3, $4, $5)',
    [id, cursor.name, pageSize, withDeleted, cursor.id],
    (rows) => {
      const directory = model.nodes.get(id);
      if (pageSize < 1) throw new Refused('FS422');
      if (directory?.kind !== 'directory' || !(withDeleted || isLive(directory))) throw new Refused('FS404');
      const later = below
        .filter((node) => isAfter(node, { name: cursor.name, id: cursor.id ?? Number.POSITIVE_INFINITY }))
        .sort((one, other) => (isAfter(one, other) ? 1 : -1));
      expectIds(rows, later.slice(0, pageSize));
    },
  );
}

/** What is at a path, or was there last. */
export function callNodeByPath(choice: Choice): Operation {
  const { model, random } = choice;
  const { mountId, path } = random.pick([...model.nodes.values()]);
  const withDeleted = random.chance(0.7);
  const key = model.mounts.find((mount) => mount.id === mountId)?.key;
  return statement(
    withDeleted ? 'node_by_path, all' : 'node_by_path',
    'select id from filestore.node_by_path($1, $2, $3)',
    [key, path, withDeleted],
    (rows) => {
      const there = [...model.nodes.values()].filter(
        (node) => node.mountId === mountId && node.path === path && (withDeleted || isLive(node)),
      );
      const moment = (node: Node) => (node.deletion === null ? '9' : (model.momentOf(node.deletion) ?? ''));
      there.sort((one, other) =>
        moment(one) === moment(other) ? other.id - one.id : moment(one) < moment(other) ? 1 : -1,
      );
      expectIds(rows, there.slice(0, 1));
    },
  );
}

type Place = Pick<Node, 'name' | 'id'>;

function isAfter(one: Place, other: Place): boolean {
  return one.name === other.name ? one.id > other.id : one.name > other.name;
}

function expectIds(rows: Rows, nodes: readonly Node[]): void {
  const found = rows.map(({ id }) => id).join();
  const expected = nodes.map(({ id }) => id).join();
  if (found !== expected) throw new Error(`returned nodes ${found} instead of ${expected}`);
}
