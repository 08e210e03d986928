import {
  anyContent,
  anyExpectedVersion,
  anyName,
  anyNode,
  anyParent,
  type Choice,
  expectNode,
  expectNumber,
  liveNodes,
  mountOf,
  type Operation,
  statement,
} from './model-operation.ts';
import { type Change, isLive, isLiveDirectory, Refused } from './node.ts';
import { mergeMetadata, moveNode, revertNode } from './writers.ts';

/** A plain update of the nodes with the given ids, as a service would write it. */
export function plainUpdate(choice: Choice, name: string, ids: readonly number[], change: Change): Operation {
  const assignments: [string, unknown][] = [
    ...(change.parentId === undefined ? [] : [['parent_id', change.parentId] as [string, unknown]]),
    ...(change.name === undefined ? [] : [['name', change.name] as [string, unknown]]),
    ...(change.state === undefined ? [] : [['state', change.state] as [string, unknown]]),
    ...Object.entries(change.content ?? {}),
  ];
  return statement(
    name,
    `update filestore.nodes
     set ${assignments.map(([column], index) => `${column} = $${index + 2}`).join(', ')}
     where id = any($1)`,
    [ids, ...assignments.map(([, value]) => value)],
    () => choice.model.update(ids, change),
  );
}

export function writeContent(choice: Choice): Operation {
  const id = anyNode(choice);
  const content = anyContent(choice, choice.model.nodes.get(id)?.kind);
  return plainUpdate(choice, 'write content', [id], { content });
}

export function writeContents(choice: Choice): Operation {
  const files = liveNodes(choice).filter((node) => node.kind === 'file');
  const ids = choice.random.some(files, 4).map((node) => node.id);
  return plainUpdate(choice, 'write several contents', ids, { content: anyContent(choice, 'file') });
}

/** Compares the version in SQL. With another version, nothing changes. */
export function writeIfUnchanged(choice: Choice): Operation {
  const id = anyNode(choice, 'file');
  const expected = anyExpectedVersion(choice, id);
  const size = choice.random.pick(['0', '7', '70']);
  return statement(
    'write if unchanged',
    'update filestore.nodes set size_bytes = $3 where id = $1 and live and version = coalesce($2, version)',
    [id, expected, size],
    () => {
      const node = choice.model.nodes.get(id);
      if (node === undefined || !isLive(node) || node.version !== (expected ?? node.version)) return;
      choice.model.update([id], { content: { size_bytes: size } });
    },
  );
}

export function callMergeMetadata(choice: Choice): Operation {
  const { model, random } = choice;
  const id = anyNode(choice);
  const set = random.chance(0.05) ? 5 : random.pick([{}, { tag: 1 }, { tag: 2 }, { note: 3, key: 4 }]);
  const unset = random.pick([[], ['tag'], ['note'], ['tag', 'key', 'nowhere']]);
  const expected = anyExpectedVersion(choice, id);
  return statement(
    'merge_metadata',
    'select * from filestore.merge_metadata($1, $2, $3, $4)',
    [id, JSON.stringify(set), unset, expected],
    (rows) => {
      mergeMetadata(model, id, set, unset, expected);
      expectNode(model, rows, id);
    },
  );
}

/** A sighting must not change a node: the comparison of versions after each step would show that. */
export function recordSightings(choice: Choice): Operation {
  const { model, random } = choice;
  const ids = Array.from({ length: 1 + random.below(5) }, () => anyNode(choice));
  const isFuture = random.chance(0.05);
  return statement(
    'record_sightings',
    'select filestore.record_sightings($1, now() + make_interval(hours => $2), now()) as recorded',
    [ids, isFuture ? 1 : 0],
    (rows) => {
      if (isFuture) throw new Refused('FS422');
      const existing = new Set(ids.filter((id) => model.nodes.has(id)));
      expectNumber(rows[0]?.recorded, existing.size);
    },
  );
}

export function changeState(choice: Choice): Operation {
  const state = choice.random.pick(['active', 'inconsistent', 'missing'] as const);
  return plainUpdate(choice, `state ${state}`, [anyNode(choice)], { state });
}

export function callMoveNode(choice: Choice): Operation {
  const { model, random } = choice;
  const id = anyNode(choice, random.chance(0.6) ? 'directory' : undefined);
  const parentId = random.chance(0.7) ? anyParent(choice, mountOf(choice, id).id) : null;
  const name = parentId === null || random.chance(0.3) ? anyName(choice) : null;
  const expected = anyExpectedVersion(choice, id);
  return statement(
    'move_node',
    'select * from filestore.move_node($1, $2, $3, $4)',
    [id, parentId, name, expected],
    (rows) => {
      moveNode(model, id, parentId, name, expected);
      expectNode(model, rows, id);
    },
  );
}

export function plainRename(choice: Choice): Operation {
  return plainUpdate(choice, 'rename', [anyNode(choice)], { name: anyName(choice) });
}

export function plainMove(choice: Choice): Operation {
  const id = anyNode(choice, choice.random.chance(0.6) ? 'directory' : undefined);
  const parentId = anyParent(choice, mountOf(choice, id).id);
  const renamed = choice.random.chance(0.3);
  return plainUpdate(choice, 'move', [id], { parentId, ...(renamed && { name: anyName(choice) }) });
}

/** The new parent is neither one of them nor below one of them, so their order does not matter. */
export function moveSeveral(choice: Choice): Operation {
  const { model, random } = choice;
  const parent = random.pick([...model.nodes.values()].filter(isLiveDirectory));
  const above = (path: string) => parent.path === path || parent.path.startsWith(`${path}/`);
  const movable = liveNodes(choice).filter((node) => node.mountId === parent.mountId && !above(node.path));
  const ids = random.some(movable, 3).map((node) => node.id);
  return plainUpdate(choice, 'move several', ids, { parentId: parent.id });
}

/**
 * The child gets two versions in one statement: one by its own change, and one by the cascade. The foreign key may
 * refuse a child that is not empty instead, since the database chooses the order of the two cascades.
 */
export function renameWithChild(choice: Choice): Operation {
  const live = liveNodes(choice);
  const children = live.filter(
    (node) =>
      live.some((parent) => parent.id === node.parentId) && live.every((below) => below.parentId !== node.id),
  );
  if (children.length === 0) return plainRename(choice);
  const child = choice.random.pick(children);
  const parentId = child.parentId ?? 0;
  const [childName, parentName] = [anyName(choice), anyName(choice)];
  return statement(
    'rename with a child',
    'update filestore.nodes set name = case id when $1 then $2 else $4 end where id in ($1, $3)',
    [child.id, childName, parentId, parentName],
    () => {
      const refusals: string[] = [];
      for (const [id, name] of [[child.id, childName] as const, [parentId, parentName] as const]) {
        try {
          choice.model.update([id], { name });
        } catch (error) {
          if (!(error instanceof Refused)) throw error;
          refusals.push(...error.codes);
        }
      }
      if (refusals.length > 0) throw new Refused(...refusals);
    },
  );
}

export function callRevertNode(choice: Choice): Operation {
  const { model, random } = choice;
  const id = random.chance(0.3) ? anyNode(choice, 'directory') : anyNode(choice);
  const current = model.nodes.get(id)?.version ?? 1;
  const version = random.chance(0.9) ? Math.max(1, current - 1 - random.below(4)) : current + random.below(2);
  const expected = anyExpectedVersion(choice, id);
  return statement(
    'revert_node',
    'select * from filestore.revert_node($1, $2, $3)',
    [id, version, expected],
    (rows) => {
      revertNode(model, id, version, expected);
      expectNode(model, rows, id);
    },
  );
}

/** The database increments versions. A caller may give that same version, and no other. */
export function chooseVersion(choice: Choice): Operation {
  const id = choice.random.pick([...choice.model.nodes.keys()]);
  const step = choice.random.pick([1, 1, 2, -1, 5]);
  const tag = choice.random.pick(['{}', '{"tag": 1}']);
  return statement(
    'choose a version',
    'update filestore.nodes set version = greatest(version + $2, 1), metadata = $3 where id = $1',
    [id, step, tag],
    () => {
      const old = choice.model.nodes.get(id)?.version ?? 1;
      choice.model.update([id], { content: { metadata: tag } });
      const counted = choice.model.nodes.get(id)?.version ?? 1;
      const given = Math.max(old + step, 1);
      if (given === old + 1 && counted === old) throw new Refused('FS422');
      if (given !== old && given !== counted) throw new Refused('FS409');
    },
  );
}

export function changeWhatStays(choice: Choice): Operation {
  const nodes = [...choice.model.nodes.values()];
  const node = choice.random.pick(nodes);
  const assignment = choice.random.pick([
    `backend_mount_id = ${choice.model.mounts.find((mount) => mount.id !== node.mountId)?.id}`,
    `kind = '${node.kind === 'file' ? 'directory' : 'file'}'`,
    "created_at = created_at - interval '1 day'",
    node.parentId === null ? `parent_id = ${node.id}` : 'parent_id = null',
  ]);
  return statement(
    'change what stays',
    `update filestore.nodes set ${assignment} where id = $1`,
    [node.id],
    () => {
      throw new Refused('FS422');
    },
  );
}
