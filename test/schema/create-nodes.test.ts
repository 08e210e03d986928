import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { SWITCH_OFF_CONFORMING_STRINGS } from '../support/databases/database-settings.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import { createDirectory, createMount, deleteNode, type Mount } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { livePaths } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let other: Mount;
/** A directory of the mount. */
let directory: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  [mount, other] = [await createMount(service), await createMount(service, 's3')];
  directory = await createDirectory(service, mount, mount.rootId, 'd');
});

const create = async (nodes: unknown) =>
  (await service.query('select * from filestore.create_nodes($1)', [JSON.stringify(nodes)])).rows;

const files = (count: number) =>
  Array.from({ length: count }, (_, index) => ({ parent_id: directory, name: `f${index}` }));

/** Expects that a batch is refused and that nothing was created. */
async function expectRefused(nodes: unknown, expected: object): Promise<void> {
  const { rows: before } = await service.query('select count(*) from filestore.nodes');
  await expect(create(nodes)).rejects.toMatchObject(expected);
  const { rows: after } = await service.query('select count(*) from filestore.nodes');
  expect(after).toEqual(before);
}

describe('create_nodes', () => {
  test('creates nodes in several directories and mounts, and returns them in the order given', async () => {
    const rows = await create([
      { parent_id: directory, name: 'z', size_bytes: 7 },
      { parent_id: other.rootId, name: 'm', kind: 'directory' },
      { parent_id: directory, name: 'a', kind: 'file' },
      { parent_id: Number(mount.rootId), name: 'k', kind: 'directory' },
    ]);
    expect(rows.map(({ path, kind, version }) => [path, kind, version])).toEqual([
      ['d/z', 'file', 1],
      ['m', 'directory', 1],
      ['d/a', 'file', 1],
      ['k', 'directory', 1],
    ]);
    expect(rows[1]).toMatchObject({ backend_mount_id: other.id, parent_id: other.rootId });
    expect(await wrongTotals(service)).toEqual([]);
  });

  test('writes every content column, and the state', async () => {
    const content = {
      size_bytes: '5',
      checksum: 'md5:0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f',
      content_hash: '"etag"',
      storage_class: 'COLD',
      metadata: { tag: ['x'] },
      last_modified_at: '2024-05-05T05:05:05.005Z',
      state: 'inconsistent',
    };
    const [row] = await create([{ parent_id: directory, name: 'f', ...content }]);
    expect(row).toMatchObject({ ...content, last_modified_at: new Date(content.last_modified_at) });
  });

  test('uses the default of a column that is left out, or null where the column is not null', async () => {
    const expected = { kind: 'file', size_bytes: '0', metadata: {}, state: 'active', checksum: null };
    const nothing = { kind: null, size_bytes: null, metadata: null, state: null, checksum: null };
    const rows = await create([
      { parent_id: directory, name: 'left out' },
      { parent_id: directory, name: 'null', ...nothing },
    ]);
    expect(rows).toMatchObject([expected, expected]);
  });

  test('accepts columns that a later migration adds, and uses their defaults', async () => {
    const client = await database().connect();
    await client.query('begin');
    for (const table of ['nodes', 'snapshots'])
      await client.query(
        `alter table filestore.${table} add column added_later text default 'x', add column added_too integer not null default 3`,
      );
    const nodes = [{}, { added_later: null, added_too: null }, { added_later: 'y', added_too: 4 }];
    const { rows } = await client.query('select * from filestore.create_nodes($1)', [
      JSON.stringify(nodes.map((node, index) => ({ parent_id: directory, name: `f${index}`, ...node }))),
    ]);
    await client.query('rollback');
    expect(rows.map(({ added_later, added_too }) => [added_later, added_too])).toEqual([
      ['x', 3],
      [null, 3],
      ['y', 4],
    ]);
  });

  test('creates nothing for an empty array', async () => {
    expect(await create([])).toEqual([]);
  });

  test('takes ten thousand nodes, and refuses one more', async () => {
    await service.query("set statement_timeout = '30s'");
    expect(await create(files(10_000))).toHaveLength(10_000);
    await service.query('reset statement_timeout');
    await expectRefused(files(10_001), { ...refusal('FS422', '10001'), constraint: 'limit_check' });
  });

  test.each([
    ['no array', { parent_id: 1 }, 'object'],
    ['null', null, 'null'],
    [
      'a number among the elements',
      [{ parent_id: '1', name: 'a' }, 5],
      'element 2 is of type number, not an object',
    ],
    ['a parent_id that is a word', [{ parent_id: 'root', name: 'a' }], 'element 1 ("a")'],
    ['a parent_id that is an object', [{ parent_id: {}, name: 'a' }], 'element 1 has the field "parent_id"'],
    ['a field that nodes do not have', [{ parent_id: '1', name: 'a', colour: 1 }], '"colour"'],
    ['an id', [{ parent_id: '1', name: 'a', id: 1 }], '"id", which the database sets'],
    ['a version', [{ parent_id: '1', name: 'a', version: 1 }], '"version", which the database sets'],
    ['a path', [{ parent_id: '1', name: 'a', path: 'a' }], '"path", which the database sets'],
    ['a mount', [{ parent_id: '1', name: 'a', backend_mount_id: 1 }], '"backend_mount_id"'],
    [
      'a name that is an object',
      [{ parent_id: '1', name: { a: 1 } }],
      'element 1 has the field "name" with a value of type object',
    ],
    [
      'a name that is a number',
      [{ parent_id: '1', name: 1 }],
      'the name of element 1 is of type number, not a string',
    ],
  ])('refuses %s', async (_, nodes, names) => {
    await expectRefused(nodes, { ...refusal('FS422', names), constraint: 'nodes_batch_check' });
  });

  test.each([
    [{ name: 'x/y' }, 'FS422', 'nodes_name_check', 'element 701 ("x/y")'],
    [{ name: undefined }, 'FS422', 'nodes_name_check', 'element 701: '],
    [{ name: 'n'.repeat(256) }, 'FS422', 'nodes_local_name_check', 'element 701 ("nnn'],
    [{ state: 'deleted' }, 'FS422', 'nodes_born_live_check', 'element 701 ("f700")'],
    [{ size_bytes: 'many' }, 'FS422', 'nodes_batch_check', 'element 701 ("f700")'],
    [{ size_bytes: -1 }, '23514', 'nodes_size_check', 'element 701 ("f700")'],
    [{ kind: 'link' }, '23514', 'node_kind_check', 'element 701 ("f700")'],
    [{ checksum: 'no digest' }, 'FS422', 'nodes_checksum_check', 'element 701 ("f700")'],
    [{ metadata: [1] }, '23514', 'nodes_metadata_check', 'element 701 ("f700")'],
  ])('names the one invalid node among a thousand: %j', async (fault, code, constraint, names) => {
    const nodes = files(1000);
    Object.assign(nodes[700] ?? {}, fault);
    await expectRefused(nodes, { ...refusal('FS422', names), code, constraint });
  });

  test('names all parents that are not live directories, up to ten', async () => {
    const gone = await createDirectory(service, mount, mount.rootId, 'gone');
    await deleteNode(service, gone);
    const [file] = await create([{ parent_id: directory, name: 'file' }]);
    const nodes = [
      { parent_id: directory, name: 'fine' },
      { parent_id: '999999', name: 'a' },
      { parent_id: gone, name: 'b' },
      { parent_id: file?.id, name: 'c' },
      { name: 'e' },
      { parent_id: '999999', name: 'f' },
    ];
    const expected = { code: 'FS404', constraint: 'nodes_parents_missing' };
    await expectRefused(nodes, {
      ...expected,
      message: [
        'parent 999999 of element 2 ("a") does not exist',
        `parent ${gone} of element 3 ("b") is deleted`,
        `parent ${file?.id} of element 4 ("c") is a file`,
        'element 5 ("e") has no parent_id',
      ].join(', '),
    });
    const many = Array.from({ length: 13 }, (_, index) => ({ parent_id: 900_000 + index, name: 'x' }));
    await expectRefused(many, {
      ...expected,
      message: expect.stringMatching(/900009 of element 10 \("x"\) does not exist, and 3 more$/),
    });
  });

  test('names the node whose name is taken', async () => {
    await create([{ parent_id: directory, name: 'f700' }]);
    await expectRefused(files(1000), {
      ...refusal('FS409', 'element 701 ("f700"): the name is taken in directory'),
      constraint: 'nodes_name_taken',
    });
    expect(await livePaths(service, mount.id)).toEqual(['d', 'd/f700']);
  });

  test('names two nodes of the batch that have the same name', async () => {
    await expectRefused([...files(1000), { parent_id: directory, name: 'f3' }], {
      ...refusal('FS409', 'element 1001 ("f3") has the same name and parent'),
      constraint: 'nodes_name_taken',
    });
  });

  test.each([
    ['a name that is given twice', 'f9'],
    ['a name that is taken', 'taken'],
  ])('refuses a batch that has %s and an invalid name', async (_, name) => {
    await create([{ parent_id: directory, name: 'taken' }]);
    for (const bad of ['', 'z/z']) {
      const nodes = [...files(10), { parent_id: directory, name }, { parent_id: directory, name: bad }];
      await expectRefused(nodes, { ...refusal('FS409', `"${name}"`), constraint: 'nodes_name_taken' });
    }
  });

  test('accepts the same name in two directories', async () => {
    const rows = await create([directory, mount.rootId].map((parent_id) => ({ parent_id, name: 'same' })));
    expect(rows.map(({ path }) => path)).toEqual(['d/same', 'same']);
  });

  test('does not show control characters in a name, and shortens a long one', async () => {
    const error = await create([{ parent_id: directory, name: `\u0007${'n'.repeat(200)}` }]).catch((e) => e);
    expect(error.message).toMatch(/^element 1 \("\?n{39}"\): name "\?n{39}" contains a control character$/);
  });

  test('shortens a value that does not fit its type', async () => {
    const error = await create([{ parent_id: directory, name: 'f', size_bytes: '9'.repeat(5000) }]).catch(
      (e) => e,
    );
    expect(error).toMatchObject(refusal('FS422', 'element 1 ("f"): value "999'));
    expect(error.message.length).toBeLessThan(400);
  });

  test('works with any setting of standard_conforming_strings', async () => {
    // A new connection, which has not compiled the function yet.
    const client = await connectAs('service');
    await client.query(SWITCH_OFF_CONFORMING_STRINGS);
    const { rows } = await client.query('select * from filestore.create_nodes($1)', [
      JSON.stringify([{ parent_id: directory, name: 'f', size_bytes: 3 }]),
    ]);
    expect(rows).toMatchObject([{ path: 'd/f', size_bytes: '3' }]);
  });

  test('refuses a taken name, also if its snapshot does not show the node', async () => {
    const [late, early] = [await connectAs('service'), service];
    await late.query('begin isolation level repeatable read');
    await late.query('select count(*) from filestore.nodes');
    await early.query("select filestore.create_node($1, 'f')", [directory]);
    await expect(
      late.query('select filestore.create_nodes($1)', [
        JSON.stringify([{ parent_id: directory, name: 'f' }]),
      ]),
    ).rejects.toMatchObject({
      ...refusal('FS409', 'taken at the same time'),
      constraint: 'nodes_name_taken',
    });
    await late.query('rollback');
  });
});
