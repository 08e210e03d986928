import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, deleteNode, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

const MERGE = 'select * from filestore.merge_metadata($1, $2, $3, $4)';

let service: Client;
let mount: Mount;
let file: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(database());
  file = (await writersOn(service).create(mount.rootId, 'f')).id;
  await service.query(`update filestore.nodes set metadata = '{"a": 1, "b": {"c": 2}}' where id = $1`, [
    file,
  ]);
});

const merge = (
  set: unknown,
  unset: readonly string[] | null = [],
  { id = file, version = null }: { readonly id?: string; readonly version?: number | null } = {},
) => one(service, MERGE, [id, set === undefined ? null : JSON.stringify(set), unset, version]);

describe('merge_metadata', () => {
  test.each([
    ['sets a new key', { d: [1, null] }, [], { a: 1, b: { c: 2 }, d: [1, null] }],
    ['replaces a value', { a: 'x' }, [], { a: 'x', b: { c: 2 } }],
    ['replaces an object whole', { b: { e: 3 } }, [], { a: 1, b: { e: 3 } }],
    ['sets a value to null', { a: null }, [], { a: null, b: { c: 2 } }],
    ['removes keys', {}, ['a', 'b'], {}],
    ['sets a key that is also to be removed', { a: 9 }, ['a', 'b'], { a: 9 }],
  ])('%s, in one version', async (_, set, unset, expected) => {
    expect(await merge(set, unset)).toMatchObject({ id: file, version: 3, metadata: expected });
    expect(await one(service, 'select metadata from filestore.nodes where id = $1', [file])).toEqual({
      metadata: expected,
    });
  });

  test.each([
    ['nothing is given', {}, []],
    ['no keys are given', {}, null],
    ['the values are there already', { a: 1 }, []],
    ['the keys are not there', {}, ['nowhere']],
  ])('adds no version when %s', async (_, set, unset) => {
    expect(await merge(set, unset)).toMatchObject({ version: 2, metadata: { a: 1, b: { c: 2 } } });
  });

  test('needs only the id', async () => {
    expect(await one(service, 'select * from filestore.merge_metadata($1)', [file])).toMatchObject({
      version: 2,
    });
  });

  test('works for directories, and for the root of a mount', async () => {
    expect(await merge({ tag: 'x' }, [], { id: mount.rootId })).toMatchObject({ metadata: { tag: 'x' } });
  });

  test.each([
    ['number', 5],
    ['string', 'text'],
    ['boolean', true],
    ['array', ['a']],
    ['null', null],
    ['null', undefined],
  ])('refuses a %s', async (type, set) => {
    await expect(merge(set)).rejects.toMatchObject({
      ...refusal('FS422', `set_values is of type ${type}`),
      constraint: 'nodes_metadata_check',
    });
  });

  test('refuses a result of more than 64 KiB, and changes nothing', async () => {
    await merge({ large: 'x'.repeat(40_000) });
    await expect(merge({ larger: 'x'.repeat(40_000) })).rejects.toMatchObject({
      constraint: 'nodes_metadata_check',
    });
    expect(await merge({})).toMatchObject({ version: 3 });
  });

  test('refuses a node that does not exist, is deleted, or is at another version', async () => {
    await expect(merge({}, [], { id: '999999999' })).rejects.toMatchObject({
      ...refusal('FS404', '999999999'),
      constraint: 'nodes_missing',
    });
    await expect(merge({}, [], { version: 1 })).rejects.toMatchObject({
      ...refusal('FS409', '"f"'),
      constraint: 'nodes_stale',
    });
    expect(await merge({ a: 2 }, [], { version: 2 })).toMatchObject({ version: 3 });
    await deleteNode(service, file);
    await expect(merge({})).rejects.toMatchObject({
      ...refusal('FS404', '"f"'),
      constraint: 'nodes_deleted',
    });
  });

  test('works for a node that is being moved', async () => {
    const other = await connectAs('service');
    await service.query('begin');
    await writersOn(service).move(file, { name: 'g' });
    const waiting = await sendAndBlock(other, MERGE, [file, '{"a": 3}', [], null]);
    expect(waiting.waits).toBe(true);
    await service.query('commit');
    expect(await waiting.outcome).toMatchObject({
      ok: true,
      result: { rows: [{ path: 'g', metadata: { a: 3 } }] },
    });
  });
});
