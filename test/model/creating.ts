import {
  anyExpectedVersion,
  anyName,
  anyNode,
  anyParent,
  type Choice,
  expectNode,
  fullContent,
  mountOf,
  type Operation,
  statement,
} from './model-operation.ts';
import { CONTENT_COLUMNS, isLiveDirectory, isRoot, type Kind } from './node.ts';
import type { NewNode } from './plain-model.ts';
import { copyTree, createNode, createNodes, ensureDirectory, upsertFile } from './writers.ts';

const anyKind = ({ random }: Choice): Kind => (random.chance(0.45) ? 'directory' : 'file');

/** All columns of a new node except its id. */
function anyNewNode(choice: Choice, parentId = anyParent(choice)): Omit<NewNode, 'id'> {
  const mounts = choice.model.mounts;
  const mount = choice.random.chance(0.03) ? choice.random.pick(mounts) : mountOf(choice, parentId);
  const kind = anyKind(choice);
  return { mountId: mount.id, parentId, name: anyName(choice), kind, content: fullContent(choice, kind) };
}

export function callCreateNode(choice: Choice): Operation {
  const node = anyNewNode(choice);
  const mountId = mountOf(choice, node.parentId).id;
  return statement(
    'create_node',
    `select * from filestore.create_node($1, $2, $3, ${CONTENT_COLUMNS.map((column, index) => `${column} => $${index + 4}`).join(', ')})`,
    [node.parentId, node.name, node.kind, ...CONTENT_COLUMNS.map((column) => node.content[column])],
    (rows) => {
      const id = Number(rows[0]?.id);
      createNode(choice.model, { ...node, mountId, id });
      expectNode(choice.model, rows, id);
    },
  );
}

export function callEnsureDirectory(choice: Choice): Operation {
  const { model, random } = choice;
  const segments = Array.from({ length: 1 + random.below(3) }, () => anyName(choice));
  const start = random.pick([...model.nodes.values()].filter(isLiveDirectory));
  const separator = random.pick(['/', '/', '//', '/./']);
  const path = [...(isRoot(start) ? [] : [start.path]), ...segments].join(separator);
  const key = random.chance(0.02) ? 'nowhere' : mountOf(choice, start.id).key;
  return statement(
    'ensure_directory',
    'select * from filestore.ensure_directory($1, $2)',
    [key, path],
    (rows) => {
      const id = Number(rows[0]?.id);
      const mount = model.mounts.find((one) => one.key === key);
      ensureDirectory(model, mount, path, id);
      expectNode(model, rows, id);
    },
  );
}

/** A new path, or that of an existing node. */
export function callUpsertFile(choice: Choice): Operation {
  const { model, random } = choice;
  const nodes = [...model.nodes.values()];
  const overwritten = random.chance(0.5) ? random.pick(nodes) : undefined;
  const start = overwritten ?? random.pick(nodes.filter(isLiveDirectory));
  const added = overwritten ? [] : Array.from({ length: 1 + random.below(3) }, () => anyName(choice));
  const path = [...(isRoot(start) ? [] : [start.path]), ...added].join('/');
  const key = random.chance(0.02) ? 'nowhere' : mountOf(choice, start.id).key;
  const full = fullContent(choice, 'file');
  const content = { ...full, metadata: random.chance(0.5) ? null : full.metadata };
  const expected = random.chance(0.2) ? 0 : anyExpectedVersion(choice, start.id);
  return statement(
    'upsert_file',
    `select * from filestore.upsert_file($1, $2, ${CONTENT_COLUMNS.map((column, index) => `${column} => $${index + 4}`).join(', ')},
       expected_version => $3)`,
    [key, path, expected, ...CONTENT_COLUMNS.map((column) => content[column])],
    (rows) => {
      const mount = model.mounts.find((one) => one.key === key);
      const id = upsertFile(model, mount, path, content, expected, Number(rows[0]?.id));
      expectNode(model, rows, id);
    },
  );
}

/** A batch as JSON, in one directory or several. */
export function callCreateNodes(choice: Choice): Operation {
  const { random } = choice;
  const parentId = anyParent(choice);
  const nodes = Array.from({ length: 1 + random.below(4) }, () => {
    const node = anyNewNode(choice, random.chance(0.7) ? parentId : anyParent(choice));
    return { ...node, mountId: mountOf(choice, node.parentId).id };
  });
  const elements = nodes.map(({ parentId, name, kind, content }) => ({
    parent_id: parentId,
    name,
    kind,
    ...content,
    metadata: JSON.parse(content.metadata ?? '{}'),
  }));
  return statement(
    'create_nodes',
    'select * from filestore.create_nodes($1)',
    [JSON.stringify(elements)],
    (rows) => {
      const created = nodes.map((node, index) => ({ ...node, id: Number(rows[index]?.id ?? -1 - index) }));
      createNodes(choice.model, created);
      for (const [index, { id }] of created.entries()) expectNode(choice.model, rows.slice(index), id);
    },
  );
}

/** Mostly a small tree, so that copies do not soon outnumber all other nodes. */
export function callCopyTree(choice: Choice): Operation {
  const { model, random } = choice;
  const candidates = [1, 2, 3, 4].map(() => anyNode(choice, random.chance(0.7) ? 'directory' : undefined));
  const sizeOf = (id: number) => {
    const node = model.nodes.get(id);
    return node === undefined ? 0 : model.treeOf(node).length;
  };
  const small = candidates.filter((id) => sizeOf(id) <= 8);
  const id = small[0] ?? candidates[0] ?? 0;
  const parentId = anyParent(choice);
  const name = random.chance(0.6) ? anyName(choice) : null;
  const expected = anyExpectedVersion(choice, id);
  const values = [id, parentId, name, expected];
  const copy = statement('copy_tree', 'select * from filestore.copy_tree($1, $2, $3, $4)', values, (rows) => {
    const ids = new Map(rows.map((row) => [row.path, Number(row.id)]));
    copyTree(model, id, parentId, name, expected, (path) => ids.get(path) ?? 0);
    expectNode(model, rows, Number(rows[0]?.id));
  });
  return {
    ...copy,
    run: async (sql) => {
      const [top] = await copy.run(sql);
      const below = await sql.query(
        `select id, path from filestore.nodes
         where backend_mount_id = $1 and live and path >= $2 || '/' and path < $2 || '0'`,
        [top?.backend_mount_id, top?.path],
      );
      return [...(top === undefined ? [] : [top]), ...below.rows];
    },
  };
}

/** One row, or several, of which later ones may be refused because of earlier ones. */
export function insertRows(choice: Choice): Operation {
  const count = choice.random.pick([1, 1, 1, 2, 4]);
  return insertion(
    choice,
    count === 1 ? 'insert' : 'insert several',
    Array.from({ length: count }, () => anyNewNode(choice)),
  );
}

/** A loader that sets the parent's columns itself, correctly or not. */
export function insertInBulk(choice: Choice): Operation {
  const { model, random } = choice;
  const parentId = anyParent(choice);
  const wrong = random.chance(0.05);
  const parentPath = wrong ? 'a/b/c' : (model.nodes.get(parentId)?.path ?? 'a');
  const rows = Array.from({ length: 1 + random.below(4) }, () => ({
    ...anyNewNode(choice, parentId),
    parentPath,
  }));
  return insertion(choice, 'insert in bulk', rows);
}

function insertion(choice: Choice, name: string, nodes: readonly Omit<NewNode, 'id'>[]): Operation {
  const columns = ['backend_mount_id', 'parent_id', 'name', 'kind', ...CONTENT_COLUMNS];
  const filled = nodes.some((node) => node.parentPath !== undefined);
  if (filled) columns.push('parent_path', 'parent_live');
  const values: unknown[] = [];
  const tuples = nodes.map((node) => {
    const { mountId, parentId, content } = node;
    const row = [
      mountId,
      parentId,
      node.name,
      node.kind,
      ...CONTENT_COLUMNS.map((column) => content[column]),
    ];
    if (filled) row.push(node.parentPath ?? null, 'true');
    values.push(...row);
    return `(${row.map((_, index) => `$${values.length - row.length + index + 1}`).join(', ')})`;
  });
  return statement(
    name,
    `insert into filestore.nodes (${columns.join(', ')}) values ${tuples.join(', ')} returning id`,
    values,
    (rows) =>
      choice.model.insert(nodes.map((node, index) => ({ ...node, id: Number(rows[index]?.id ?? -index) }))),
  );
}
