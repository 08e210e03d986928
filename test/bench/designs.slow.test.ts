import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { type Design, type Place, type Query, query } from '../../bench/designs/design.ts';
import { deleteStatement } from '../../bench/designs/file-writes.ts';
import { DESIGNS } from '../../bench/designs/read-designs.ts';
import { run } from '../../bench/designs/sampling.ts';
import { type StagedTree, stageTree } from '../../bench/designs/staged-tree.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const NODES = 1_500;
const [thisSchema, unguardedTwin, ...alternatives] = DESIGNS as readonly [Design, Design, ...Design[]];

const database = databaseForFile();
let client: Client;
let tree: StagedTree;

// Every test makes its changes in all designs, so they hold the same tree at its end.
beforeAll(async () => {
  // Only a superuser may write rows that the keys and triggers refuse.
  client = await database().connectAsSuperuser();
  tree = await stageTree(client, NODES);
  for (const design of [thisSchema, ...alternatives]) {
    expect((await design.unavailable?.(client)) ?? null).toBeNull();
    await design.setUp(client);
    await design.load?.(client);
  }
  await unguardedTwin.setUp(client);
});

async function rows(query: Query | undefined): Promise<readonly Readonly<Record<string, unknown>>[]> {
  if (query === undefined) throw new Error('the design has no such operation');
  return (await run(client, query)).rows;
}

async function everywhere(queryOf: (design: Design) => Query | undefined): Promise<void> {
  for (const design of [thisSchema, ...alternatives]) await rows(queryOf(design));
}

/** Asks this schema and each alternative the same question. */
async function expectTheSame(ask: (design: Design) => Promise<unknown>): Promise<void> {
  const expected = await ask(thisSchema);
  for (const design of alternatives) expect(await ask(design), design.title).toEqual(expected);
}

async function expectTheSameRows(
  ...questions: readonly ((design: Design) => Query | undefined)[]
): Promise<void> {
  for (const question of questions) await expectTheSame((design) => rows(question(design)));
}

/** Totals and children of many directories, of the small tree at its present place, and no wrong row. */
async function expectTheSameTree(small: Place = tree.small): Promise<void> {
  const { root, page, archive, projects, large, incoming } = tree;
  const directories = [root, archive, projects, small, large, incoming, ...page.slice(0, 20)];
  await expectTheSameRows(
    (design) => design.totalsList?.(page),
    ...directories.map((directory) => (design: Design) => design.totals?.(directory)),
    ...directories.map((directory) => (design: Design) => design.page?.(directory, '', 1_000)),
  );
  for (const { title, wrongRows } of [thisSchema, ...alternatives]) {
    expect(Number((await rows(wrongRows?.('1')))[0]?.wrong), title).toBe(0);
  }
}

test('the generated tree has the nodes that were asked for, and is the same each time', async () => {
  const digest = async () => {
    const { rows: found } = await client.query(
      "select count(*)::integer as nodes, md5(string_agg(n::text, '|' order by n.id)) as digest from bench.nodes n",
    );
    return found[0];
  };
  const first = await digest();
  expect(first.nodes).toBe(NODES);
  await stageTree(client, NODES);
  expect(await digest()).toEqual(first);
});

test('all designs find the same nodes', async () => {
  const sample = tree.files.slice(0, 20);
  await expectTheSameRows(
    ...sample.flatMap(({ id, mountId, path, checksum, tag }) => [
      (design: Design) => design.byId(id),
      (design: Design) => design.resolve?.(mountId, path),
      (design: Design) => design.resolveDeleted?.(mountId, path),
      (design: Design) => design.byChecksum?.(checksum),
      (design: Design) => design.byMetadata?.(JSON.stringify({ tag })),
    ]),
    (design) => design.resolve?.('1', 'incoming/nothing'),
    (design) => design.resolve?.('1', ''),
    (design) => design.duplicates?.('1'),
    (design) => design.largest?.('1'),
    (design) => design.reconcileQueue?.('1'),
  );
  expect(await rows(thisSchema.duplicates?.('1'))).not.toEqual([]);
});

test('all designs list the same pages', async () => {
  const { flat } = tree;
  const first = await rows(thisSchema.page?.(flat, '', 10));
  expect(first).toHaveLength(10);
  await expectTheSameRows(
    (design) => design.page?.(flat, '', 10),
    (design) => design.page?.(flat, String(first.at(-1)?.name), 1_000),
  );
});

test('all designs count the same sums and totals', async () => {
  await expectTheSameRows(
    ...[tree.root, tree.flat, tree.small, tree.large].map(
      (top) => (design: Design) => design.subtreeSum?.(top),
    ),
  );
  await expectTheSameTree();
});

test('a wrong path and a wrong total of this schema count as wrong rows', async () => {
  await client.query('begin');
  // A replica checks no keys and runs no triggers. The rules of the row itself hold.
  await client.query('set local session_replication_role = replica');
  await client.query(
    `update filestore.nodes set parent_path = 'elsewhere', path = 'elsewhere/' || name, depth = 2 where id = $1`,
    [tree.files[0]?.id],
  );
  await client.query('update filestore.rollups set file_count = file_count + 1 where node_id = $1', [
    tree.small.id,
  ]);
  const wrong = await rows(thisSchema.wrongRows?.('1'));
  const elsewhere = await rows(thisSchema.wrongRows?.('2'));
  await client.query('rollback');
  expect([wrong, elsewhere]).toEqual([[{ wrong: '2' }], [{ wrong: '0' }]]);
});

test('all designs find the tombstone of a deleted file, and no live node', async () => {
  const deleted = tree.files.slice(30, 35);
  await everywhere(({ deleteFiles }) => deleteFiles?.(deleted.map(({ id }) => id)));
  await expectTheSameRows(
    ...deleted.flatMap(({ mountId, path }) => [
      (design: Design) => design.resolve?.(mountId, path),
      (design: Design) => design.resolveDeleted?.(mountId, path),
    ]),
  );
  await expectTheSameTree();
});

test('each call of a load of deletes leaves the tombstone of another file, in every design', async () => {
  const [connections, calls] = [2, 3];
  for (const design of [thisSchema, ...alternatives]) {
    const { text } = deleteStatement(design, tree.filesFrom, connections);
    const deleted: number[] = [];
    for (let client_id = 0; client_id < connections; client_id += 1) {
      for (let counter = 1; counter <= calls; counter += 1) {
        const call = text.replaceAll(':counter', `${counter}`).replaceAll(':client_id', `${client_id}`);
        deleted.push((await client.query(call)).rowCount ?? 0);
      }
    }
    const { rows: left } = await client.query(
      `select id from ${design.nodes.table} where id between $1 and $2 and ${design.nodes.live}`,
      [tree.filesFrom, tree.filesFrom + connections * calls],
    );
    expect({ deleted, left }, design.title).toEqual({
      deleted: [1, 1, 1, 1, 1, 1],
      left: [{ id: String(tree.filesFrom + connections * calls) }],
    });
  }
  await expectTheSameTree();
});

test('no design deletes a directory as if it were a file', async () => {
  await expectTheSame(
    async ({ deleteFile }) => (await client.query(deleteFile?.(tree.small.id) ?? '')).rowCount,
  );
  expect(await rows(thisSchema.resolve?.('1', tree.small.path))).toHaveLength(1);
});

test('all designs hold the same tree after a move, and after the move back', async () => {
  const { small, archive, projects } = tree;
  const moved = { ...small, path: `${archive.path}/moved`, name: 'moved' };
  await everywhere(({ move }) => move?.(small, archive, 'moved'));
  await expectTheSameTree(moved);
  await expectTheSameRows((design) => design.subtreeSum?.(moved));
  await expectTheSame(async (design) => (await rows(design.resolve?.('1', moved.path))).map(({ id }) => id));
  await everywhere(({ move }) => move?.(moved, projects, small.name));
  await expectTheSameTree();
});

test('no design moves a directory below itself', async () => {
  const { large, page } = tree;
  const [top] = page;
  const inner = page.find(({ parentId }) => parentId === top?.id);
  if (top === undefined || inner === undefined) throw new Error('the tree has no such directories');
  await expectTheSame(async ({ move }) => {
    const outcome = await run(client, move?.(top, inner, 'inside') ?? { text: '', values: [] }).catch(
      () => undefined,
    );
    return outcome?.rowCount ?? 0;
  });
  expect(large.size).toBeGreaterThan(1);
  await expectTheSameTree();
});

test('all designs hold the same tree after a tree was deleted, and after it was restored', async () => {
  const { large } = tree;
  await everywhere(({ deleteTree }) => deleteTree?.(large));
  expect(await rows(thisSchema.resolve?.('1', large.path))).toEqual([]);
  await expectTheSameTree();
  await expectTheSameRows(
    (design) => design.resolve?.('1', large.path),
    (design) => design.subtreeSum?.(large),
  );
  await everywhere(({ restoreTree }) => restoreTree?.(large));
  await expectTheSameTree();
});

test('all designs copy a tree to a new mount, and erase that mount', async () => {
  await expectTheSame(async (design) => {
    const mount = await design.createMount?.(client, 'copies');
    if (mount === undefined || design.eraseMount === undefined) throw new Error('the design has no mounts');
    await rows(design.copyTree?.(tree.large, mount.rootId, 'copy'));
    const root = { ...tree.root, id: mount.rootId, mountId: mount.mountId };
    const found = [await rows(design.totals?.(root)), await rows(design.page?.(root, '', 10))];
    await design.eraseMount(client, mount);
    return [...found, await rows(design.resolve?.(mount.mountId, 'copy'))];
  });
  await expectTheSameTree();
});

test('all designs create a directory, and a file in it', async () => {
  const { incoming, batchesFrom } = tree;
  const batch = { mountId: '1', parentId: String(batchesFrom), parentPath: `'${incoming.path}/batch-1'` };
  const path = `${incoming.path}/batch-1/below`;
  await everywhere(
    ({ createDirectory }) => createDirectory && query(createDirectory({ ...batch, name: "'below'" })),
  );
  await expectTheSame(async (design) => {
    const [directory] = await rows(design.resolve?.('1', path));
    const file = {
      mountId: '1',
      parentId: String(directory?.id),
      parentPath: `'${path}'`,
      name: "'file'",
      sizeBytes: '5',
    };
    await rows(query(design.create?.(file) ?? ''));
    const found = await rows(design.resolve?.('1', `${path}/file`));
    return [directory?.kind, found.map(({ kind, size_bytes }) => [kind, size_bytes])];
  });
  await expectTheSameTree();
});

test('all designs hold the same files after creates, a batch, a bulk load, an overwrite and heartbeats', async () => {
  const { incoming, batchesFrom, files } = tree;
  const batch = { ...incoming, id: String(batchesFrom), path: `${incoming.path}/batch-1` };
  const file = {
    mountId: '1',
    parentId: batch.id,
    parentPath: `'${batch.path}'`,
    name: "'one'",
    sizeBytes: '17::bigint',
  };
  const many = JSON.stringify(
    ['first', 'second'].map((name) => ({
      parent_id: Number(batch.id),
      name,
      size_bytes: 5,
      checksum: `sha256:${'0'.repeat(64)}`,
      metadata: { many: true },
    })),
  );
  await everywhere(({ create }) => create && { text: create(file), values: [] });
  await everywhere(({ createBatch }) => createBatch?.(many));
  await everywhere(({ bulkInsert }) => bulkInsert?.('-more'));
  await everywhere(
    ({ overwrite }) => overwrite && { text: overwrite(`${files[0]?.id}`, '99::bigint'), values: [] },
  );
  await everywhere(({ heartbeat }) => heartbeat?.(files.slice(0, 5).map(({ id }) => id)));
  await expectTheSameTree();
  await expectTheSameRows(
    (design) => design.page?.(batch, '', 100),
    (design) => design.byId(String(files[0]?.id)),
    (design) => design.totals?.(batch),
  );
  expect(await rows(thisSchema.page?.(batch, 'o', 1))).toMatchObject([{ name: 'one', size_bytes: '17' }]);
});

test('all designs remove tombstones for good', async () => {
  await thisSchema.settle?.(client);
  await expectTheSame(async ({ purge }) => Number((await rows(purge?.(3)))[0]?.removed));
  await expectTheSameTree();
});

test('the unguarded twin creates, moves, deletes and restores the same nodes as this schema', async () => {
  await client.query('drop schema twin cascade');
  await unguardedTwin.setUp(client);
  const { small, archive, projects, incoming, batchesFrom } = tree;
  const place = { mountId: '1', parentId: String(batchesFrom), parentPath: `'${incoming.path}/batch-1'` };
  const state = async (schema: string) =>
    (
      await client.query(
        `select count(*) as live, count(*) filter (where kind = 'file') as files, sum(length(path)) as paths,
           sum(length(directory_path)) as directory_paths, sum(depth) as depths
         from ${schema}.nodes
         where live`,
      )
    ).rows;
  for (const queryOf of [
    ({ create }: Design) => create && query(create({ ...place, name: "'twin file'", sizeBytes: '5' })),
    ({ createDirectory }: Design) => createDirectory && query(createDirectory({ ...place, name: "'twin'" })),
    ({ deleteFile, nodes }: Design) =>
      deleteFile && query(deleteFile(`(select max(id) from ${nodes.table} where kind = 'file')`)),
    (design: Design) => design.move?.(small, archive, 'moved'),
    (design: Design) => design.move?.({ ...small, path: `${archive.path}/moved` }, projects, small.name),
    (design: Design) => design.deleteTree?.(small),
    (design: Design) => design.restoreTree?.(small),
  ]) {
    for (const design of [thisSchema, unguardedTwin]) {
      const { rowCount } = await run(client, queryOf(design) ?? query(''));
      expect(rowCount, design.title).toBeGreaterThan(0);
    }
    expect(await state('twin')).toEqual(await state('filestore'));
  }
});
