import type { Listed } from './backend.ts';
import { followEntry, isSame } from './following.ts';
import { anyName, type Choice, type Operation } from './model-operation.ts';
import { isLive, isLiveDirectory, isMalformed, type Mount, NO_CONTENT, type Node, Refused } from './node.ts';
import type { Model } from './plain-model.ts';

const parentOf = (path: string) => path.slice(0, Math.max(path.lastIndexOf('/'), 0));

/** A batch of files and directories by path, new ones and others. */
export function callSyncNodes(choice: Choice): Operation {
  const { model, random } = choice;
  const mount = random.pick(model.mounts);
  const live = [...model.nodes.values()].filter((node) => node.mountId === mount.id && isLive(node));
  const top = random.pick(live.filter(isLiveDirectory));
  const prefix = top.path === '' ? '' : `${top.path}/`;
  const below = live.filter(({ path }) => path !== '' && path.startsWith(prefix)).map(({ path }) => path);
  const paths = Array.from({ length: 1 + random.below(4) }, () =>
    below.length > 0 && random.chance(0.5)
      ? random.pick(below).slice(prefix.length)
      : Array.from({ length: 1 + random.below(2) }, () => anyName(choice)).join('/'),
  );
  const isPlain = (path: string) =>
    path.split('/').every((name) => name !== '' && !isMalformed(name) && name.length < 255);
  const entries = [...new Set(paths.filter(isPlain))].map((path): Listed => {
    const known = live.find((node) => node.path === prefix + path);
    const kind =
      random.chance(0.9) && known !== undefined ? known.kind : random.pick(['file', 'directory'] as const);
    return {
      path,
      kind,
      ...(kind === 'file' && { size_bytes: random.pick([0, 1, 10]) }),
      ...(random.chance(0.3) && { last_modified_at: '2024-01-01 00:00:00+00' }),
      ...(random.chance(0.3) && { backend_identity: random.pick(['i1', 'i2']) }),
      ...(kind === 'file' && random.chance(0.3) && { content_hash: random.pick(['"etag-1"', '"etag-2"']) }),
    };
  });
  return {
    name: 'sync_nodes',
    text: `select * from filestore.sync_nodes('${mount.key}', '${JSON.stringify(entries)}', '${top.path}')`,
    run: async (sql) => {
      const synced = await sql.query('select * from filestore.sync_nodes($1, $2, $3)', [
        mount.key,
        JSON.stringify(entries),
        top.path,
      ]);
      const ids = await sql.query(
        'select path, id from filestore.nodes where backend_mount_id = $1 and live',
        [mount.id],
      );
      return [{ ids: new Map(ids.rows.map(({ path, id }) => [path, Number(id)])) }, ...synced.rows];
    },
    expect: ([first, ...rows]) => {
      const full = entries.map((entry) => ({ ...entry, path: prefix + entry.path }));
      // After a refusal there are no ids.
      let refused = 0;
      const idOf = (path: string): number => {
        refused -= 1;
        return first?.ids.get(path) ?? refused;
      };
      const expected = syncNodes(model, mount, top.path, full, idOf);
      const found = rows.map(
        ({ path, node_id, version, outcome }) => `${path} ${node_id} ${version} ${outcome}`,
      );
      if (`${found}` !== `${expected}`) throw new Error(`returned ${found} instead of ${expected}`);
    },
  };
}

/** Returns a line for each entry. */
function syncNodes(
  model: Model,
  mount: Mount,
  directory: string,
  entries: readonly Listed[],
  idOf: (path: string) => number,
): readonly string[] {
  const given = new Map(entries.map((entry) => [entry.path, entry]));
  const all = new Map<string, Listed>(given);
  for (const path of [...given.keys(), `${directory}/x`]) {
    for (let above = parentOf(path); above !== ''; above = parentOf(above)) {
      if (given.get(above)?.kind === 'file') throw new Refused('FS422');
      if (!all.has(above)) all.set(above, { path: above, kind: 'directory' });
    }
  }
  const nodeAt = (path: string) =>
    [...model.nodes.values()].find((node) => node.mountId === mount.id && isLive(node) && node.path === path);
  const outcomes = new Map<string, string>();
  // From the top down.
  for (const [path, entry] of [...all].sort(([one], [other]) => (one < other ? -1 : 1))) {
    const known = nodeAt(path);
    if (known !== undefined && known.kind !== entry.kind) throw new Refused('FS409');
    outcomes.set(
      path,
      known === undefined ? create(model, mount, entry, nodeAt, idOf) : change(model, known, entry),
    );
  }
  return entries.map(
    ({ path }) => `${path} ${nodeAt(path)?.id} ${nodeAt(path)?.version} ${outcomes.get(path)}`,
  );
}

function create(
  model: Model,
  mount: Mount,
  entry: Listed,
  nodeAt: (path: string) => Node | undefined,
  idOf: (path: string) => number,
): string {
  const { path, kind } = entry;
  const parentId = nodeAt(parentOf(path))?.id ?? 0;
  const name = path.slice(path.lastIndexOf('/') + 1);
  const { content } = followEntry({ kind, content: NO_CONTENT, state: 'active' }, entry);
  model.insert([{ id: idOf(path), mountId: mount.id, parentId, name, kind, content }]);
  return 'created';
}

function change(model: Model, known: Node, entry: Listed): string {
  const followed = followEntry(known, entry);
  if (isSame(known, followed)) return 'unchanged';
  model.update([known.id], followed);
  return 'changed';
}
