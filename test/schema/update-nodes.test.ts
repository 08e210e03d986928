import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import { createMount, createNode, deleteNode, type Mount } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let [a, b, c]: [string, string, string] = ['', '', ''];

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(database());
  [a, b, c] = [
    await createNode(database(), mount, mount.rootId, 'a'),
    await createNode(database(), mount, mount.rootId, 'b'),
    await createNode(database(), mount, mount.rootId, 'c'),
  ];
});

const UPDATE = 'select * from filestore.update_nodes($1)';
const update = async (changes: unknown) => (await service.query(UPDATE, [JSON.stringify(changes)])).rows;

test('each node gets the values of its element, keeps the others, and is returned in the order given', async () => {
  const digest = '9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08';
  await update([{ id: a, content_hash: 'tag', metadata: { tag: 'x' } }]);
  expect(
    await update([
      { id: b, size_bytes: 7, checksum: digest, state: 'missing' },
      { id: Number(a), size_bytes: 8, content_hash: null, expected_version: 2 },
    ]),
  ).toMatchObject([
    { id: b, size_bytes: '7', checksum: `sha256:${digest.toLowerCase()}`, state: 'missing', version: 2 },
    { id: a, size_bytes: '8', content_hash: null, metadata: { tag: 'x' }, state: 'active', version: 3 },
  ]);
  expect(await wrongTotals(service)).toEqual([]);
});

test('an element that changes nothing adds no version, and no element is no change', async () => {
  expect(await update([{ id: a }, { id: b, size_bytes: 0 }])).toMatchObject([{ version: 1 }, { version: 1 }]);
  expect(await update([])).toEqual([]);
});

test('one node that is stale, deleted or unknown changes none', async () => {
  await deleteNode(database(), c);
  for (const [change, error] of [
    [{ id: b, expected_version: 7 }, refusal('FS409', `node ${b}`)],
    // An import may bring this version.
    [{ id: b, expected_version: 2_000_000_000 }, refusal('FS409', `node ${b}`)],
    [{ id: c }, refusal('FS404', c)],
    [{ id: '999999' }, refusal('FS404', '999999')],
  ] as const) {
    await expect(update([{ id: a, size_bytes: 5 }, change])).rejects.toMatchObject(error);
  }
  expect(await update([{ id: a }])).toMatchObject([{ size_bytes: '0', version: 1 }]);
});

test.each([
  [{}, 'the changes are of type object'],
  [[1], 'element 1 is of type number'],
  [[{ size_bytes: 1 }], 'element 1 has no id'],
  [[{ id: 'x' }], 'element 1 has no id, or one that is not an id'],
  [[{ id: 1, expected_version: 'x' }], 'element 1 has an expected_version that is not a version'],
  [[{ id: 1 }, { id: 2, path: 'x' }], 'element 2 has the field "path", which cannot be changed'],
  [[{ id: 1, state: 'deleted' }], 'element 1 would be deleted'],
  [[{ id: 2 }, { id: 1 }, { id: '2' }], 'element 3 has the id of an earlier element'],
])('the changes %j are refused', async (changes, problem) => {
  await expect(update(changes)).rejects.toMatchObject({
    ...refusal('FS422', problem),
    constraint: 'nodes_batch_check',
  });
});

test.each([
  ['size_bytes', -1, 'nodes_size_check'],
  ['metadata', [], 'nodes_metadata_check'],
  ['checksum', 'x', 'nodes_checksum_check'],
  ['state', 'gone', 'node_state_check'],
])('a value of %s that a node cannot have is refused: %j', async (column, value, constraint) => {
  await expect(update([{ id: a, [column]: value }])).rejects.toMatchObject({ constraint });
});

test('more than 10000 elements are refused', async () => {
  const many = Array.from({ length: 10_001 }, (_, id) => ({ id }));
  await expect(update(many)).rejects.toMatchObject({ constraint: 'node_ids_check' });
});

test('nodes are locked in order of id, and a change at the same time is not lost', async () => {
  const [other, third] = [await connectAs('service'), await connectAs('service')];
  await other.query('begin');
  await other.query(UPDATE, [JSON.stringify([{ id: b, metadata: { tag: 'other' } }])]);
  const changes = JSON.stringify([
    { id: c, size_bytes: 3 },
    { id: b, size_bytes: 2 },
    { id: a, size_bytes: 1 },
  ]);
  const { waits, outcome } = await sendAndBlock(service, UPDATE, [changes]);
  expect(waits).toBe(true);
  const lock = (id: string) =>
    third.query('select from filestore.nodes where id = $1 for no key update nowait', [id]);
  await expect(lock(a)).rejects.toMatchObject({ code: '55P03' });
  await lock(c);
  await other.query('commit');
  expect(await outcome).toMatchObject({
    ok: true,
    result: { rows: [{ id: c }, { id: b, size_bytes: '2', metadata: { tag: 'other' } }, { id: a }] },
  });
});

test.each([
  ['size_bytes', 'many'],
  ['size_bytes', 1.5],
  ['size_bytes', 1e29],
  ['size_bytes', null],
  ['last_modified_at', 'yesterday evening'],
  ['state', null],
  ['metadata', null],
])(
  'of a batch, the element is named whose %s cannot be %j, and nothing is written',
  async (column, value) => {
    await expect(
      update([{ id: a, size_bytes: 4 }, { id: b, [column]: value }, { id: c }]),
    ).rejects.toMatchObject({
      ...refusal('FS422', `element 2 (node ${b})`),
      constraint: 'nodes_batch_check',
    });
    expect(await update([{ id: a }])).toMatchObject([{ version: 1 }]);
  },
);

test('of a batch, the element is named whose value breaks a check', async () => {
  await expect(update([{ id: a }, { id: c, size_bytes: -1 }])).rejects.toMatchObject({
    code: '23514',
    constraint: 'nodes_size_check',
    message: expect.stringMatching(new RegExp(`^element 2 \\(node ${c}\\): `)),
  });
});
