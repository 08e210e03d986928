import { plainUpdate } from './changing.ts';
import {
  anyExpectedVersion,
  anyName,
  anyNode,
  anyParent,
  anyTombstone,
  type Choice,
  expectNode,
  expectNumber,
  liveNodes,
  mountOf,
  type Operation,
  statement,
} from './model-operation.ts';
import { type Change, isLive, isRoot, Refused } from './node.ts';
import { deleteBatch, deleteNode, purgeable, restoreNode } from './writers.ts';

export function callDeleteNode(choice: Choice): Operation {
  const { model, random } = choice;
  const recursive = random.chance(0.5);
  const id = anyNode(choice, recursive ? 'directory' : undefined);
  const expected = anyExpectedVersion(choice, id);
  return statement(
    recursive ? 'delete_node, recursive' : 'delete_node',
    'select * from filestore.delete_node($1, $2, $3)',
    [id, expected, recursive],
    (rows) => {
      deleteNode(model, id, expected, recursive);
      expectNode(model, rows, id);
    },
  );
}

export function plainDelete(choice: Choice): Operation {
  const ids = choice.random.chance(0.7)
    ? [anyNode(choice)]
    : choice.random.some(liveNodes(choice), 3).map((node) => node.id);
  return plainUpdate(choice, 'delete', ids, { state: 'deleted' });
}

/** The statement that the documentation gives for a tree. */
export function plainDeleteTree(choice: Choice): Operation {
  const live = liveNodes(choice);
  if (live.length === 0) return plainDelete(choice);
  const top = choice.random.pick(live);
  return statement(
    'delete a tree',
    `update filestore.nodes
     set state = 'deleted'
     where backend_mount_id = $1 and live
       and (path = $2 or (path >= $2 || '/' and path < $2 || '0'))`,
    [top.mountId, top.path],
    () => {
      const ids = choice.model.treeOf(top).map((node) => node.id);
      choice.model.update(ids, { state: 'deleted' });
    },
  );
}

/** Deletes at a new moment, or at the moment of an earlier deletion. */
export function callDeleteBatch(choice: Choice): Operation {
  const { model, random } = choice;
  const id = anyNode(choice, 'directory');
  const max = random.pick([1, 2, 3, 100]);
  const earlier = [...model.nodes.values()].flatMap((node) => node.deletion ?? []);
  const deletion = earlier.length > 0 && random.chance(0.6) ? Math.max(...earlier) : model.newDeletion();
  return statement(
    'delete_batch',
    'select filestore.delete_batch($1, $2, coalesce($3::timestamptz, statement_timestamp())) as deleted',
    [id, max, model.momentOf(deletion) ?? null],
    (rows) => expectNumber(rows[0]?.deleted, deleteBatch(model, id, max, deletion)),
  );
}

export function callRestoreNode(choice: Choice): Operation {
  const { model, random } = choice;
  const id = anyTombstone(choice);
  const expected = anyExpectedVersion(choice, id);
  const withTree = random.chance(0.6);
  return statement(
    withTree ? 'restore_node, with tree' : 'restore_node',
    'select * from filestore.restore_node($1, $2, $3)',
    [id, expected, withTree],
    (rows) => {
      restoreNode(model, id, expected, withTree);
      expectNode(model, rows, id);
    },
  );
}

/** Restores a node in one update, perhaps to another place and with another name. */
export function plainRestore(choice: Choice): Operation {
  const id = anyTombstone(choice);
  const { random } = choice;
  const change: Change = {
    state: 'active',
    ...(random.chance(0.5) && { parentId: anyParent(choice, mountOf(choice, id).id) }),
    ...(random.chance(0.4) && { name: anyName(choice) }),
  };
  return plainUpdate(choice, 'restore', [id], change);
}

/** A tombstone cannot be moved. */
export function moveTombstone(choice: Choice): Operation {
  const id = anyTombstone(choice);
  const change = choice.random.chance(0.5)
    ? { parentId: anyParent(choice, mountOf(choice, id).id) }
    : { name: anyName(choice) };
  return plainUpdate(choice, 'move a tombstone', [id], change);
}

const PENDING = 'select distinct directory_id as id from filestore.rollup_deltas';
const LEFT = 'select id from filestore.nodes';

/** The database chooses which of equally old tombstones it purges first. */
export function callPurge({ model, random }: Choice): Operation {
  const batch = random.pick([1, 3, 1000]);
  let pending = new Set<number>();
  let left = new Set<number>();
  return {
    name: 'purge_deleted',
    text: `select filestore.purge_deleted('0', ${batch})`,
    isFirstWrite: true,
    run: async (sql) => {
      pending = new Set((await sql.query(PENDING)).rows.map((row) => Number(row.id)));
      const { rows } = await sql.query("select filestore.purge_deleted('0', $1) as purged", [batch]);
      left = new Set((await sql.query(LEFT)).rows.map((row) => Number(row.id)));
      return rows;
    },
    expect: ([row]) => {
      const chosen = purgeable(model, pending);
      const gone = [...model.nodes.keys()].filter((id) => !left.has(id));
      expectNumber(row?.purged, Math.min(batch, chosen.size));
      expectNumber(gone.length, Number(row?.purged));
      const wrong = gone.filter((id) => !chosen.has(id));
      if (wrong.length > 0) throw new Error(`purged nodes ${wrong}`);
      model.remove(gone);
    },
  };
}

export function plainPurge(choice: Choice): Operation {
  const { model, random } = choice;
  const tombs = [...model.nodes.values()].filter((node) => !isLive(node)).map((node) => node.id);
  const ids = random.chance(0.1) ? [anyNode(choice)] : random.some(tombs, 1 + random.below(4));
  let pending = new Set<number>();
  return {
    name: 'delete rows',
    text: `delete from filestore.nodes where id = any('{${ids}}')`,
    run: async (sql) => {
      pending = new Set((await sql.query(PENDING)).rows.map((row) => Number(row.id)));
      return (await sql.query('delete from filestore.nodes where id = any($1)', [ids])).rows;
    },
    expect: () => {
      const nodes = ids.flatMap((id) => model.nodes.get(id) ?? []);
      const below = (id: number) =>
        [...model.nodes.values()].filter((node) => node.parentId === id && !ids.includes(node.id));
      // The foreign key raises before the guard.
      if (nodes.some(({ id }) => below(id).some(isLive))) throw new Refused('23503');
      const holds = (id: number) => below(id).length > 0;
      if (nodes.some((node) => isLive(node) || isRoot(node) || pending.has(node.id) || holds(node.id))) {
        // The foreign key raises before the guard, for live children.
        throw new Refused(
          'FS409',
          ...(nodes.some((node) => isLive(node) && holds(node.id)) ? ['23503'] : []),
        );
      }
      model.remove(ids);
    },
  };
}
