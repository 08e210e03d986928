import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';

const database = databaseForFile();

const METADATA = { a: 1, b: [1.5, 'x'], long: 'x'.repeat(20_000), text: { c: null } };
/** The same object with its keys in another order. */
const REORDERED = { text: { c: null }, long: 'x'.repeat(20_000), b: [1.5, 'x'], a: 1 };

let file: string;

beforeEach(async () => {
  const mount = await createMount(database());
  file = await createNode(database(), mount, mount.rootId, 'f');
  await database().query(
    `update filestore.nodes
     set size_bytes = 5, checksum = 'md5:ab', content_hash = 'etag', storage_class = 'COLD', metadata = $2,
         last_modified_at = '2024-05-05 05:05:05.123+00'
     where id = $1`,
    [file, METADATA],
  );
});

async function versionAfter(assignment: string, values: readonly unknown[] = []): Promise<number> {
  const { version } = await one(
    database(),
    `update filestore.nodes set ${assignment} where id = $1 returning version`,
    [file, ...values],
  );
  return version;
}

describe('a node is compared as a whole row:', () => {
  test.each([
    'kind = kind, parent_id = parent_id',
    'name = name, state = state',
    'size_bytes = 5.0::numeric',
    "size_bytes = '5'",
    "checksum = 'md5:ab', content_hash = 'etag', storage_class = 'COLD'",
    'metadata = metadata',
    "last_modified_at = '2024-05-05 07:05:05.123+02'",
    "last_modified_at = '2024-05-05 05:05:05.1230000+00'",
    "last_modified_at = '2024-05-05 05:05:05.1234+00'",
    'updated_at = now()',
  ])('%s adds no version', async (assignment) => {
    expect(await versionAfter(assignment)).toBe(2);
  });

  test('the same JSON with other spaces and key order adds no version', async () => {
    expect(await versionAfter('metadata = $2', [JSON.stringify(REORDERED, null, 2)])).toBe(2);
  });

  test.each([
    'size_bytes = 6',
    'checksum = null',
    "storage_class = 'cold'",
    "content_hash = ''",
    'metadata = metadata || \'{"a": 2}\'',
    "metadata = metadata - 'a'",
    "last_modified_at = '2024-05-05 05:05:05.124+00'",
    // Rows are compared by their bytes: a number with other trailing zeros is another value.
    'metadata = metadata || \'{"a": 1.0}\'',
  ])('%s adds a version', async (assignment) => {
    expect(await versionAfter(assignment)).toBe(3);
  });
});
