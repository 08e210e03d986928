import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import {
  beginCommand,
  canonicalPath,
  createNode,
  finishCommand,
  mergeMetadata,
  recordSightings,
  type SqlClient,
  upsertFile,
} from '../../src/sql/index.ts';

/** Fails the test if a statement is sent. */
const client: SqlClient = { query: ({ text }) => expect.fail(`sent ${text}`) };
/** A value that TypeScript does not accept. */
const wrong = (value: unknown) => value as never;

test.each([
  [
    'is undefined',
    () => createNode(client, { parentId: '1', name: wrong(undefined) }),
    'create_node',
    'name',
  ],
  ['is null', () => canonicalPath(client, { path: wrong(null) }), 'canonical_path', 'path'],
])('a required argument that %s is a RangeError that names it', async (_, call, name, key) => {
  await expect(call()).rejects.toThrow(
    new RangeError(`filestore.${name} needs the argument ${key}, which is missing or null.`),
  );
});

test.each([
  ['upsert_file', 'path', () => upsertFile(client, { mountKey: 'm', path: 'photo\ud800' })],
  ['upsert_file', 'mount_key', () => upsertFile(client, { mountKey: 'm\udfff', path: 'photo' })],
  [
    'begin_command',
    'idempotency_key',
    () => beginCommand(client, { command: 'c', idempotencyKey: '\udc00\ud800' }),
  ],
  [
    'merge_metadata',
    'unset_keys',
    () => mergeMetadata(client, { nodeId: '1', setValues: {}, unsetKeys: ['a', 'b\ud800'] }),
  ],
])(
  'text that pg would change, and so make equal to other text, is refused: %s, %s',
  async (name, parameter, call) => {
    await expect(call()).rejects.toThrow(
      new RangeError(
        `filestore.${name} got half of a surrogate pair for ${parameter}. Pass text for which isWellFormed() is true.`,
      ),
    );
  },
);

test.each([
  ['a Uint8Array', new Uint8Array([1, 2])],
  ['a Buffer', Buffer.from([0, 0, 0, 0, 0, 0, 0, 5])],
  ['an object', { toPostgres: () => '1' }],
  ['an object of another class', new String('1')],
  ['a function', () => 1],
  ['a symbol', Symbol('one')],
  ['an array with one', ['1', new Uint8Array([1])]],
])('an id that is %s is a RangeError', async (_, id) => {
  const calls = [
    recordSightings(client, { nodeIds: wrong([id].flat()) }),
    createNode(client, { parentId: wrong(id), name: 'a' }),
  ];
  for (const ended of await Promise.allSettled(calls)) {
    expect(ended).toMatchObject({
      status: 'rejected',
      reason: expect.objectContaining({
        name: 'RangeError',
        message: expect.stringMatching(/ for (node_ids|parent_id)\. Pass (a string, |one value)/),
      }),
    });
  }
});

test.each<[string, string, () => Promise<unknown>]>([
  [
    'an array for name. Pass one value. Many frameworks make an array of a repeated parameter of a URL.',
    'create_node',
    () => createNode(client, { parentId: '1', name: wrong(['a', 'b']) }),
  ],
  [
    'a value of type boolean for name. Pass a string.',
    'create_node',
    () => createNode(client, { parentId: '1', name: wrong(true) }),
  ],
  [
    'a value of type number for path. Pass a string.',
    'upsert_file',
    () => upsertFile(client, { mountKey: 'm', path: wrong(5) }),
  ],
  [
    'no array for node_ids. Pass an array.',
    'record_sightings',
    () => recordSightings(client, { nodeIds: wrong('{1,2}') }),
  ],
  [
    'a value for metadata that is not JSON (Do not know how to serialize a BigInt). Pass strings, numbers, booleans, null, arrays and plain objects.',
    'create_node',
    () => createNode(client, { parentId: '1', name: 'a', metadata: wrong({ size: 1n }) }),
  ],
  [
    'a value for metadata that is not JSON. Pass strings, numbers, booleans, null, arrays and plain objects.',
    'create_node',
    () => createNode(client, { parentId: '1', name: 'a', metadata: wrong(() => 1) }),
  ],
])("a value that is not of the argument's type is a RangeError: %s", async (problem, name, call) => {
  await expect(call()).rejects.toThrow(new RangeError(`filestore.${name} got ${problem}`));
});

test.each([
  ['NaN', { size: [Number.NaN] }],
  ['an invalid Date', { at: new Date(Number.NaN) }],
  ['a Map', { tags: new Map() }],
  ['a Promise', { owner: Promise.resolve('ada') }],
  ['a RegExp', [/a/]],
  ['a Error', new Error('lost')],
  ['undefined in an array', [undefined]],
  ['half of a surrogate pair', { '\ud800': 1 }],
  ['half of a surrogate pair', ['a\udc00']],
])('JSON that would lose a value is a RangeError: %s', async (why, deep) => {
  const call = createNode(client, { parentId: '1', name: 'a', metadata: wrong({ deep }) });
  await expect(call).rejects.toThrow(
    new RangeError(
      `filestore.create_node got a value for metadata that is not JSON (${why}). Pass strings, numbers, booleans, null, arrays and plain objects.`,
    ),
  );
});

test('JSON takes what has a form in it', async () => {
  const sent: unknown[] = [];
  const spy: SqlClient = { query: async ({ values }) => ({ rows: [{ id: sent.push(...values) }] }) };
  const metadata = {
    empty: [{}, Object.create(null), runInNewContext('({})')],
    boxed: [Object('a'), Object(1)],
    own: new (class {
      toJSON() {
        return 'own';
      }
    })(),
    error: Object.assign(new Error('lost'), { code: 'ECONNRESET' }),
  };
  await createNode(spy, { parentId: '1', name: 'a', metadata: wrong(metadata) });
  expect(sent).toContain('{"empty":[{},{},{}],"boxed":["a",1],"own":"own","error":{"code":"ECONNRESET"}}');
});

test('an invalid Date is refused', async () => {
  const call = createNode(client, { parentId: '1', name: 'a', lastModifiedAt: new Date(Number.NaN) });
  await expect(call).rejects.toThrow(
    new RangeError('filestore.create_node got an invalid Date for last_modified_at.'),
  );
});

test.each(['+010000-01-01T00:00:00.000Z', '-000043-03-15T00:00:00.000Z'])(
  'a Date in a year that SQL writes in another way is refused: %s',
  async (moment) => {
    const call = createNode(client, { parentId: '1', name: 'a', lastModifiedAt: new Date(moment) });
    await expect(call).rejects.toThrow(
      /^filestore.create_node got a Date in the year .* for last_modified_at\./,
    );
  },
);

test('text with whole surrogate pairs is sent unchanged', async () => {
  const sent: unknown[] = [];
  const spy: SqlClient = { query: async ({ values }) => ({ rows: [{ id: sent.push(...values) }] }) };
  await finishCommand(spy, { entryId: 1n, status: wrong('😀'), affectedNodeIds: ['1', 2, 3n] });
  expect(sent).toEqual([1n, '😀', ['1', 2, 3n]]);
});
