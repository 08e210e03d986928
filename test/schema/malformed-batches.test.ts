import { expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';

const database = databaseEmptiedAfterEachTest();

const create = (nodes: unknown) =>
  database()
    .query('select filestore.create_nodes($1)', [nodes === undefined ? null : JSON.stringify(nodes)])
    .then(
      () => undefined,
      (error: Error & { readonly code: string; readonly constraint: string; readonly hint: string }) => error,
    );

/** The parent does not exist, so a batch of these elements is refused only after it was read. */
const sound = { parent_id: 9_999_999, name: 'f' };
const READ = 'parent 9999999 of element 1 ("f") does not exist';

test.each<[what: string, nodes: unknown, message: string]>([
  ['null', undefined, 'the batch is of type null, not an array of objects'],
  ['an object', sound, 'the batch is of type object, not an array of objects'],
  ['a text', 'f', 'the batch is of type string, not an array of objects'],
  ['a number in it', [sound, 5], 'element 2 is of type number, not an object'],
  ['null in it', [null, sound], 'element 1 is of type null, not an object'],
  ['several faults', [sound, { ...sound, x: 1 }, 5, []], 'element 2 ("f") has the field "x"'],
  ['a fault before another one', [sound, 5, { ...sound, x: 1 }], 'element 2 is of type number'],
  ['unknown fields', [{ ...sound, zeta: 1, alpha: 2 }], 'the field "alpha", which a node does not have'],
  ['a field of the database', [{ ...sound, id: 5 }], 'the field "id", which the database sets'],
  ['a field of the row', [{ ...sound, tableoid: 5 }], 'the field "tableoid", which a node does not have'],
  ['a long field', [{ ...sound, ['x'.repeat(41)]: 1 }], `the field "${'x'.repeat(40)}", which`],
  ['a name that is a number', [{ ...sound, name: 5 }], 'the name of element 1 is of type number'],
  [
    'a name that is a list',
    [{ ...sound, name: ['f'] }],
    'element 1 has the field "name" with a value of type array',
  ],
  ['a field and a name', [{ ...sound, name: 5, x: 1 }], 'element 1 ("5") has the field "x"'],
  ['a name and a parent', [{ parent_id: 'x', name: 5 }], 'the name of element 1 is of type number'],
  ['a field and a parent', [{ parent_id: 'x', name: 'f', x: 1 }], 'element 1 ("f") has the field "x"'],
  ['a text as parent', [{ parent_id: 'x', name: 'f' }], 'element 1 ("f") has a parent_id that is not an id'],
  ['a negative parent', [{ parent_id: -1, name: 'f' }], 'has a parent_id that is not an id'],
  ['a huge parent', [{ parent_id: '1'.repeat(19), name: 'f' }], 'has a parent_id that is not an id'],
  ['a list as parent', [{ parent_id: [1], name: null }], 'element 1 has the field "parent_id"'],
])('a batch with %s is refused with the position of its first fault', async (_, nodes, message) => {
  expect(await create(nodes)).toMatchObject({
    code: 'FS422',
    constraint: 'nodes_batch_check',
    message: expect.stringContaining(message),
  });
});

test.each([
  ['no parent', { name: 'f' }, 'element 1 ("f") has no parent_id'],
  ['null as parent', { parent_id: null, name: 'f' }, 'element 1 ("f") has no parent_id'],
  ['a parent in a text', { parent_id: '9999999', name: 'f' }, READ],
  ['null as name', { ...sound, name: null }, 'parent 9999999 of element 1 does not exist'],
  ['no name', { parent_id: 9_999_999 }, 'parent 9999999 of element 1 does not exist'],
  ['a state and a kind', { ...sound, state: 'missing', kind: 'directory', size_bytes: 5 }, READ],
])('an element with %s is read', async (_, element, message) => {
  expect((await create([element]))?.message).toContain(message);
});

test('a batch has at most 10000 elements', async () => {
  expect((await create(Array(10_000).fill(null)))?.constraint).toBe('nodes_batch_check');
  expect(await create(Array(10_001).fill(null))).toMatchObject({
    code: 'FS422',
    constraint: 'limit_check',
    message: 'the batch has 10001 nodes, which are too many',
  });
});
