import { describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode, deleteNode, one, pathOf } from '../support/rows/nodes.ts';

const database = databaseForFile();

describe('a name', () => {
  test.each([
    'plain.txt',
    'with space',
    ' leading and trailing ',
    `single ' and double " quotes`,
    '100% of_it',
    'back\\slash',
    'emoji 🗂️',
    '...',
    '.hidden',
    'a'.repeat(255),
    'é'.repeat(127),
    'select 1; --',
  ])('may be %j', async (name) => {
    const mount = await createMount(database());
    const directory = await createDirectory(database(), mount, mount.rootId, name);
    const file = await createNode(database(), mount, directory, name);
    expect(await pathOf(database(), file)).toBe(`${name}/${name}`);
  });

  test.each(['.', '..', 'a/b', '/', 'line\nbreak', 'tab\t', 'bell\u0007', 'delete\u007f', 'c1\u0085'])(
    'may not be %j',
    async (name) => {
      const mount = await createMount(database());
      await expect(createNode(database(), mount, mount.rootId, name)).rejects.toMatchObject({
        code: '23514',
        constraint: 'nodes_name_check',
      });
      const file = await createNode(database(), mount, mount.rootId, 'fine');
      await expect(
        database().query('update filestore.nodes set name = $2 where id = $1', [file, name]),
      ).rejects.toMatchObject({ constraint: 'nodes_name_check' });
    },
  );

  test.each([
    ['local', 255, 'a'.repeat(256)],
    ['local', 255, 'é'.repeat(128)],
  ] as const)('has at most 255 bytes on a %s mount', async (kind, limit, name) => {
    const mount = await createMount(database(), kind);
    const refusal = {
      code: 'FS422',
      message: expect.stringContaining('256 bytes'),
      hint: expect.stringContaining(`${limit}`),
    };
    await expect(createNode(database(), mount, mount.rootId, name)).rejects.toMatchObject(refusal);
    const file = await createNode(database(), mount, mount.rootId, 'short');
    await expect(
      database().query('update filestore.nodes set name = $2 where id = $1', [file, name]),
    ).rejects.toMatchObject(refusal);
  });

  test('may not be empty', async () => {
    const mount = await createMount(database());
    await expect(createNode(database(), mount, mount.rootId, '')).rejects.toMatchObject({
      constraint: 'nodes_name_check',
    });
  });

  test('has at most 1024 bytes on an S3 mount', async () => {
    const mount = await createMount(database(), 's3');
    await createNode(database(), mount, mount.rootId, 'a'.repeat(1024));
    await expect(createNode(database(), mount, mount.rootId, 'b'.repeat(1025))).rejects.toMatchObject({
      constraint: 'nodes_name_check',
    });
  });
});

test('a path has at most 2600 bytes', async () => {
  const mount = await createMount(database());
  let parent = mount.rootId;
  for (let depth = 0; depth < 10; depth += 1) {
    parent = await createDirectory(database(), mount, parent, 'd'.repeat(249));
  }
  await createNode(database(), mount, parent, 'f'.repeat(100));
  await expect(createNode(database(), mount, parent, 'g'.repeat(101))).rejects.toMatchObject({
    constraint: 'nodes_path_length_check',
  });
});

describe('a column', () => {
  const insert = async (columns: Record<string, unknown>) => {
    const mount = await createMount(database());
    const all = { backend_mount_id: mount.id, parent_id: mount.rootId, name: 'a', kind: 'file', ...columns };
    const names = Object.keys(all);
    return one(
      database(),
      `insert into filestore.nodes (${names.join(', ')})
       values (${names.map((_, index) => `$${index + 1}`).join(', ')}) returning *`,
      Object.values(all),
    );
  };

  test.each([
    { size_bytes: '0' },
    { size_bytes: '9223372036854775807' },
    { kind: 'directory', size_bytes: '0' },
    { checksum: 'sha256:0123456789abcdef' },
    { content_hash: '"d41d8cd9-2"' },
    { metadata: { tags: ['a', 'b'], nested: { deep: null } } },
    { state: 'inconsistent' },
    { state: 'missing' },
    { storage_class: 'STANDARD_IA' },
  ])('accepts %j', async (columns) => {
    await expect(insert(columns)).resolves.toMatchObject(columns);
  });

  test.each([
    [{ size_bytes: -1 }, 'nodes_size_check'],
    [{ kind: 'directory', size_bytes: 1 }, 'nodes_size_check'],
    [{ kind: 'symlink' }, 'node_kind_check'],
    [{ checksum: 'd41d8cd98f00b204e9800998ecf8427e' }, 'nodes_checksum_check'],
    [{ checksum: 'sha256:XYZ' }, 'nodes_checksum_check'],
    [{ checksum: 'sha256:' }, 'nodes_checksum_check'],
    [{ metadata: '[]' }, 'nodes_metadata_check'],
    [{ metadata: '"text"' }, 'nodes_metadata_check'],
    [{ state: 'lost' }, 'node_state_check'],
    [{ deleted_at: '2024-01-01' }, 'nodes_live_check'],
    [{ live: false }, 'nodes_live_check'],
    [{ directory_path: 'a' }, 'nodes_directory_check'],
  ])('refuses %j', async (columns, constraint) => {
    // A loader sets the parent's columns itself, and then no trigger corrects them.
    const parent =
      'live' in columns || 'directory_path' in columns ? { parent_path: '', parent_live: true } : {};
    await expect(insert({ ...parent, ...columns })).rejects.toMatchObject({ code: '23514', constraint });
  });

  test.each([
    [{ state: 'deleted', deleted_at: '2024-01-01' }, 'cannot be created in state deleted'],
    [{ parent_id: null }, 'has no parent'],
    [{ version: 0 }, 'at version 0'],
    [{ updated_at: 'infinity' }, 'with updated_at infinity'],
    [{ updated_at: '-infinity' }, 'with updated_at -infinity'],
    [{ parent_id: '999999999', name: '' }, '999999999'],
  ])('refuses in a new node %j', async (columns, message) => {
    await expect(insert(columns)).rejects.toMatchObject({
      code: expect.stringMatching(/^FS4(22|04)$/),
      message: expect.stringContaining(message),
    });
  });
});

describe('the root', () => {
  test('must belong to a mount that exists', async () => {
    await expect(
      database().query(
        "insert into filestore.nodes (backend_mount_id, name, kind, directory_path) values (999999, '', 'directory', '')",
      ),
    ).rejects.toMatchObject({ code: '23503', constraint: 'nodes_backend_mount_fkey' });
  });

  test('exists once per mount', async () => {
    const mount = await createMount(database());
    await expect(
      database().query(
        "insert into filestore.nodes (backend_mount_id, name, kind, directory_path) values ($1, '', 'directory', '')",
        [mount.id],
      ),
    ).rejects.toMatchObject({ constraint: 'nodes_root_key' });
  });

  test('must be a directory', async () => {
    const mount = await createMount(database());
    await expect(
      database().query("insert into filestore.nodes (backend_mount_id, name, kind) values ($1, '', 'file')", [
        mount.id,
      ]),
    ).rejects.toMatchObject({ constraint: 'nodes_root_check' });
  });

  test('can be described, which adds a version', async () => {
    const mount = await createMount(database());
    const describe = `update filestore.nodes set metadata = '{"a": 1}' where id = $1`;
    await database().query(describe, [mount.rootId]);
    expect(
      await one(database(), 'select version, parent_live from filestore.nodes where id = $1', [mount.rootId]),
    ).toEqual({ version: 2, parent_live: null });
  });

  test('cannot be deleted, removed, renamed or given a parent', async () => {
    const mount = await createMount(database());
    const remove = () => database().query('delete from filestore.nodes where id = $1', [mount.rootId]);
    await expect(remove()).rejects.toMatchObject({ code: 'FS409', constraint: 'nodes_alive' });
    const directory = await createDirectory(database(), mount, mount.rootId, 'a');
    await expect(remove()).rejects.toMatchObject({ code: '23503', constraint: 'nodes_parent_fkey' });
    await expect(deleteNode(database(), mount.rootId)).rejects.toMatchObject({ code: 'FS422' });
    await expect(
      database().query("update filestore.nodes set name = 'x' where id = $1", [mount.rootId]),
    ).rejects.toMatchObject({ constraint: 'nodes_root_check' });
    await expect(
      database().query("update filestore.nodes set parent_id = $2, name = 'x' where id = $1", [
        mount.rootId,
        directory,
      ]),
    ).rejects.toMatchObject({ code: 'FS422' });
    await expect(
      database().query("update filestore.nodes set parent_id = null, name = '' where id = $1", [directory]),
    ).rejects.toMatchObject({ code: 'FS422' });
  });
});

test.each([
  ["kind = 'file'", 'its kind'],
  ["created_at = 'yesterday'", 'its birth'],
  ['id = default', 'its id'],
  ['backend_mount_id = $2', 'its mount'],
])('the identity of a node never changes: %s', async (change) => {
  const [mount, other] = [await createMount(database()), await createMount(database())];
  const directory = await createDirectory(database(), mount, mount.rootId, 'a');
  await expect(
    database().query(
      `update filestore.nodes set ${change} where id = $1${change.includes('$2') ? '' : ' and $2::bigint > 0'}`,
      [directory, other.id],
    ),
  ).rejects.toMatchObject({ code: 'FS422', message: expect.stringContaining('"a"') });
});
