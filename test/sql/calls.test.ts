import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  beginCommand,
  canonicalPath,
  checkAccess,
  createNode,
  deleteNode,
  directoryTotals,
  finishCommand,
  foldRollups,
  listDirectory,
  listNodes,
  lockTree,
  nodeAt,
  nodeByPath,
  nodeLocation,
  recordSightings,
  type SqlClient,
  startCommand,
} from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);
let service: Client;
/** The root of the mount `media`. */
let parentId: string;

beforeAll(async () => {
  service = await connectAs('service');
  await service.query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
  );
  parentId = (await one(service, 'select id from filestore.nodes where parent_id is null')).id;
});

describe('a call returns', () => {
  test('the row of a table that the function returns', async () => {
    const node = await createNode(service, { parentId, name: 'a row', sizeBytes: 7 });
    expect(node).toEqual(await one(service, 'select * from filestore.nodes where id = $1', [node.id]));
    expect(node).toMatchObject({ path: 'a row', size_bytes: '7', kind: 'file' });
  });

  test('the one row of a set of at most one, and undefined for none', async () => {
    const { id } = await createNode(service, { parentId, name: 'found' });
    expect(await nodeByPath(service, { mountKey: 'media', path: 'found' })).toMatchObject({ id });
    expect(await nodeByPath(service, { mountKey: 'media', path: 'not found' })).toBeUndefined();
    expect(await directoryTotals(service, { nodeId: parentId })).toMatchObject({ dir_count: '0' });
    expect(await directoryTotals(service, { nodeId: 1n << 40n })).toBeUndefined();
  });

  test('all rows of a set', async () => {
    const directory = await createNode(service, { parentId, name: 'a set', kind: 'directory' });
    for (const name of ['b', 'a']) await createNode(service, { parentId: directory.id, name });
    const rows = await listDirectory(service, { directoryId: directory.id });
    expect(rows.map(({ name }) => name)).toEqual(['a', 'b']);
    expect(await checkAccess(service)).toEqual([]);
  });

  test('a value, and null where the function announces it', async () => {
    const node = await createNode(service, { parentId, name: 'a value' });
    expect(await canonicalPath(service, { path: '/a//b' })).toBe('a/b');
    expect(await nodeLocation(service, { nodeId: node.id })).toBe('file:///srv/media/a%20value');
    expect(await nodeLocation(service, { nodeId: -1 })).toBeNull();
  });

  test('out parameters as an object, in which a row is an object with its own types', async () => {
    const begun = await beginCommand(service, { command: 'look', parameters: { a: [1] }, queue: true });
    expect(Object.keys(begun)).toEqual(['is_new', 'entry']);
    expect(begun.is_new).toBe(true);
    expect(begun.entry).toEqual(
      await one(service, 'select * from filestore.journal_entries where id = $1', [begun.entry.id]),
    );
    expect(begun.entry.created_at).toBeInstanceOf(Date);
  });

  test('rows with a row of a table in each, and nulls beside it', async () => {
    const directory = await createNode(service, { parentId, name: 'listed', kind: 'directory' });
    const file = await createNode(service, { parentId: directory.id, name: 'a' });
    const list = { mountKey: 'media', path: 'listed', kinds: ['file'] } as const;
    const none = {
      total_bytes: null,
      file_count: null,
      dir_count: null,
      child_count: null,
      consistency_state: null,
      last_calculated_at: null,
    };
    const rows = await listNodes(service, { ...list, withTotals: true });
    expect(rows).toEqual([
      {
        cursor: expect.stringMatching(new RegExp(`^path[.]\\w{8}:${file.id}:listed/a$`)),
        node: file,
        last_seen_at: null,
        last_reconciled_at: null,
        ...none,
      },
    ]);
    expect(await listNodes(service, { ...list, afterCursor: rows[0]?.cursor })).toEqual([]);
    const [{ total_bytes, dir_count } = none] = await listNodes(service, {
      mountKey: 'media',
      nameContains: 'LISTED',
      withTotals: true,
    });
    expect([total_bytes, dir_count]).toEqual(['0', '0']);
  });

  test('nothing where the function returns nothing', async () => {
    const { backend_mount_id: mountId } = await createNode(service, { parentId, name: 'nothing' });
    expect(await lockTree(service, { mountId, exclusive: false })).toBeUndefined();
  });
});

describe('an argument', () => {
  test('that is left out or undefined gets the default of SQL', async () => {
    const left = await createNode(service, { parentId, name: 'left out' });
    const given = await createNode(service, {
      parentId,
      name: 'undefined',
      kind: undefined,
      metadata: undefined,
    });
    for (const node of [left, given]) expect(node).toMatchObject({ kind: 'file', metadata: {} });
    expect(await foldRollups(service)).toBeGreaterThanOrEqual(0);
  });

  test.each([
    ['an array', [1, 'two', null, { three: [] }]],
    ['an empty array', []],
    ['a string that looks like JSON', '{"a": 1}'],
    ['a number', 7],
    ['false', false],
    ['an object with quotes', { "it's": '"\\' }],
  ])('of JSON accepts %s', async (_what, result) => {
    const { entry } = await beginCommand(service, { command: 'json' });
    const ended = await finishCommand(service, { entryId: entry.id, status: 'succeeded', result });
    expect(ended.result).toEqual(result);
  });

  test('of JSON accepts readonly arrays, and leaves out undefined fields', async () => {
    const tags: readonly string[] = ['new'];
    const metadata: { readonly tags: readonly string[]; readonly camera?: string | undefined } = {
      tags,
      camera: undefined,
    };
    const node = await createNode(service, { parentId, name: 'readonly', metadata });
    expect(node.metadata).toEqual({ tags: ['new'] });
  });

  test('of JSON that is null becomes the null of SQL', async () => {
    const { entry } = await beginCommand(service, { command: 'json' });
    await finishCommand(service, { entryId: entry.id, status: 'failed', error: { a: 1 }, result: null });
    const isNull = 'select result is null as is_null from filestore.journal_entries where id = $1';
    expect(await one(service, isNull, [entry.id])).toEqual({ is_null: true });
  });

  test('may be a bigint, an array of bigints, or a Date with milliseconds', async () => {
    const { id, updated_at } = await createNode(service, {
      parentId: BigInt(parentId),
      name: 'kinds',
      sizeBytes: 9_007_199_254_740_993n,
      lastModifiedAt: new Date('2026-01-02T03:04:05.678Z'),
    });
    const version = await nodeAt(service, { nodeId: BigInt(id), moment: updated_at });
    expect(version).toMatchObject({ id, size_bytes: '9007199254740993' });
    expect(version?.last_modified_at?.toISOString()).toBe('2026-01-02T03:04:05.678Z');
    expect(await recordSightings(service, { nodeIds: [BigInt(id), Number(parentId), '-1'] })).toBe(2);
    const { entry } = await beginCommand(service, { command: 'ids' });
    const ended = await finishCommand(service, {
      entryId: entry.id,
      status: 'succeeded',
      affectedNodeIds: [BigInt(id), parentId],
    });
    expect(ended.affected_node_ids).toEqual([id, parentId]);
  });

  test('that an instance inherits from its class is given too', async () => {
    class Upload {
      readonly parentId = parentId;
      get name() {
        return 'inherited';
      }
      get sizeBytes() {
        return 7;
      }
    }
    expect(await createNode(service, new Upload())).toMatchObject({ name: 'inherited', size_bytes: '7' });
  });

  test('with an unknown name is an error with that name, the function and the known names', async () => {
    const args = { parentId, nmae: 'a' } as unknown as { parentId: string; name: string };
    await expect(createNode(service, args)).rejects.toThrow(
      /^filestore\.create_node has no argument "nmae"\. Its arguments are parentId, name, kind, /,
    );
    const none = { anything: undefined };
    await expect(foldRollups(service, none as object)).rejects.toThrow('Its arguments are maxDeltas.');
  });

  test.each([
    'parent_id',
    'constructor',
    '__proto__',
    'toString',
    'name => $1); drop table filestore.nodes; --',
    '"',
  ])('with the name %s never gets into a statement', async (key) => {
    const statements: string[] = [];
    const spy: SqlClient = { query: async ({ text }) => ({ rows: [statements.push(text)] }) };
    const args = Object.fromEntries([
      ['parentId', parentId],
      ['name', 'a'],
      [key, 'x'],
    ]) as never;
    await expect(createNode(spy, args)).rejects.toThrow(`has no argument ${JSON.stringify(key)}`);
    expect(statements).toEqual([]);
  });

  test('that is required but undefined is an error that names it', async () => {
    const args = { parentId: undefined as unknown as string, name: 'a' };
    await expect(createNode(service, args)).rejects.toThrow(
      'filestore.create_node needs the argument parentId, which is missing or null.',
    );
  });

  test('is passed as a value, never as SQL', async () => {
    const name = "'; drop table filestore.nodes; --";
    expect(await createNode(service, { parentId, name })).toMatchObject({ name });
  });
});

describe('a refusal of the database', () => {
  test('reaches the caller with its code, constraint and hint', async () => {
    await createNode(service, { parentId, name: 'taken' });
    await expect(createNode(service, { parentId, name: 'taken' })).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'nodes_name_taken',
    });
    await expect(startCommand(service, { entryId: -1 })).rejects.toMatchObject({ code: 'FS404' });
  });

  test('because of a missing right reaches the caller unchanged', async () => {
    const reader = await connectAs('reader');
    await expect(deleteNode(reader, { nodeId: parentId })).rejects.toMatchObject({ code: '42501' });
  });
});
