import type { NewNode } from './model.ts';
import { CONTENT_COLUMNS, isLiveDirectory, isRoot, type Kind } from './node.ts';
import {
  anyExpectedVersion,
  anyName,
  anyParent,
  type Choice,
  expectNode,
  fullContent,
  mountOf,
  type Operation,
  statement,
} from './operation.ts';
import { createNode, ensureDirectory, upsertFile } from './writers.ts';

const anyKind = ({ random }: Choice): Kind => (random.chance(0.45) ? 'directory' : 'file');

/** Everything of a new node but its id. */
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
    'select * from filestore.create_node($1, $2, $3, $4, $5, $6, $7, $8, $9)',
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

/** A new path, or that of a node that is there. */
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

/** One row, or several of which later ones may be refused for the sake of earlier ones. */
export function insertRows(choice: Choice): Operation {
  const count = choice.random.pick([1, 1, 1, 2, 4]);
  return insertion(
    choice,
    count === 1 ? 'insert' : 'insert several',
    Array.from({ length: count }, () => anyNewNode(choice)),
  );
}

/** A loader that fills the parent's columns itself, rightly or not. */
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
