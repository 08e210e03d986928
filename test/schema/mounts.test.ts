import { describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import {
  createMount,
  createNode,
  deleteNode,
  insertMount as insertInto,
  one,
} from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();
const connectAs = levelsForFile(database);

const insertMount = (columns: Record<string, unknown>) => insertInto(database(), columns);

const LOCAL = { backend_kind: 'local', root_path: '/srv/media' };
const S3 = { backend_kind: 's3', bucket: 'media-eu' };
test('a new mount gets the root node of its tree', async () => {
  const mount = await insertMount(LOCAL);
  const root = await one(database(), 'select * from filestore.nodes where backend_mount_id = $1', [mount.id]);
  expect(root).toMatchObject({
    parent_id: null,
    name: '',
    path: '',
    depth: 0,
    kind: 'directory',
    live: true,
  });
});

test('a mount has a display name, labels and a contact', async () => {
  const described = {
    display_name: 'Média',
    description: 'Photos\n\tand films',
    labels: { team: 'a' },
    contact: 'a@b.c',
  };
  await expect(insertMount({ ...LOCAL, ...described })).resolves.toMatchObject(described);
});

test.each([
  ['display_name', ''],
  ['display_name', 'a\nb'],
  ['display_name', 'a'.repeat(257)],
  ['description', 'a'.repeat(8193)],
  ['description', 'a\rb'],
  ['description', 'a\u001b[2Jb'],
  ['labels', '[]'],
  ['contact', ''],
  ['contact', 'a\nb'],
  ['contact', 'a\u009bb'],
  ['credentials_ref', ''],
  ['credentials_ref', 'a\nb'],
  ['credentials_ref', 'a'.repeat(1025)],
  ['state_reason', 'a'.repeat(8193)],
])('a mount with %s %j is refused', async (column, value) => {
  await expect(insertMount({ ...LOCAL, [column]: value })).rejects.toMatchObject({
    constraint: `backend_mounts_${column}_check`,
  });
});

test.each([
  ['display_name', 'media password=hunter2'],
  ['description', 'ask s3://user:hunter2@host'],
  ['contact', 'https://user:hunter2@host'],
  ['endpoint', 'https://user:hunter2@host'],
  ['labels', { team: { password: 'hunter2' } }],
])('a secret in %s is refused and not quoted', async (column, value) => {
  const refusal = await insertMount({ ...LOCAL, [column]: value }).catch((error: unknown) => error);
  expect(refusal).toMatchObject({ code: 'FS422', constraint: 'backend_mounts_secret_check' });
  expect(JSON.stringify(refusal)).not.toContain('hunter2');
});

describe('config', () => {
  test.each([
    ['region and endpoint', { region: 'eu-west-1', endpoint: { url: 'https://s3.example' } }],
    ['the id of a key', { accessKeyId: 'AKIA…' }],
    ['lists', { replicas: [{ region: 'eu' }, 'x', 1, null] }],
  ])('may have %s', async (_, config) => {
    await expect(insertMount({ ...LOCAL, config })).resolves.toMatchObject({ config });
  });

  test.each([
    { secretAccessKey: 'x' },
    { secret_access_key: 'x' },
    { password: 'x' },
    { PASSWORD: 'x' },
    { dbPasswd: 'x' },
    { sessionToken: 'x' },
    { api_key: 'x' },
    { auth: { nested: [{ privateKey: 'x' }] } },
  ])('may not have a secret: %j', async (config) => {
    await expect(insertMount({ ...LOCAL, config })).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'backend_mounts_secret_check',
      hint: expect.stringContaining('credentials_ref'),
    });
  });

  test('must be an object', async () => {
    await expect(insertMount({ ...LOCAL, config: '[]' })).rejects.toMatchObject({
      constraint: 'backend_mounts_config_check',
    });
    await expect(insertMount({ ...LOCAL, access_policy: '"all"' })).rejects.toMatchObject({
      constraint: 'backend_mounts_access_policy_check',
    });
  });
});

test.each([
  ['mount_key', 'a/b', 'backend_mounts_mount_key_check'],
  ['mount_key', '', 'backend_mounts_mount_key_check'],
  ['access_mode', 'wo', 'backend_mounts_access_mode_check'],
  ['state', 'sleeping', 'backend_mounts_state_check'],
  ['version', 0, 'backend_mounts_version_check'],
])('%s cannot be %j', async (column, value, constraint) => {
  await expect(insertMount({ ...LOCAL, [column]: value })).rejects.toMatchObject({ constraint });
});

test('mount keys are unique', async () => {
  await insertMount(LOCAL);
  await expect(insertMount(S3)).rejects.toMatchObject({ constraint: 'backend_mounts_mount_key_key' });
});

describe('version', () => {
  test('increases at every change, and updated_at with it', async () => {
    const before = await insertMount(LOCAL);
    const after = await one(database(), "update filestore.backend_mounts set state = 'offline' returning *");
    expect(after.version).toBe(2);
    expect(after.updated_at.getTime()).toBeGreaterThanOrEqual(before.updated_at.getTime());
    const { later } = await one(
      database(),
      'select updated_at > created_at as later from filestore.backend_mounts',
    );
    expect(later).toBe(true);
  });

  test('does not increase when an update changes nothing', async () => {
    await insertMount(LOCAL);
    expect(
      await one(database(), 'update filestore.backend_mounts set state = state returning version'),
    ).toEqual({
      version: 1,
    });
  });

  test('cannot be chosen by the caller', async () => {
    await insertMount(LOCAL);
    await expect(
      database().query("update filestore.backend_mounts set state = 'error', version = 9"),
    ).rejects.toMatchObject({ code: 'FS409', message: expect.stringContaining('version 1') });
    await expect(
      database().query('update filestore.backend_mounts set version = version + 1'),
    ).rejects.toMatchObject({
      code: 'FS422',
    });
  });
});

test.each(["backend_kind = 's3', root_path = null, bucket = 'media-eu'", "created_at = 'yesterday'"])(
  'the identity of a mount never changes: %s',
  async (change) => {
    await insertMount(LOCAL);
    await expect(database().query(`update filestore.backend_mounts set ${change}`)).rejects.toMatchObject({
      code: 'FS422',
      message: expect.stringContaining('"media"'),
    });
  },
);

describe('deleting a mount', () => {
  const deleteAll = 'select filestore.delete_mount(mount_key) from filestore.backend_mounts';

  test('removes its root when it has no other nodes', async () => {
    await createMount(database());
    await database().query(deleteAll);
    expect(await database().query('select from filestore.nodes')).toHaveLength(0);
  });

  test('is refused while it has a live node or a tombstone', async () => {
    const mount = await createMount(database());
    const file = await createNode(database(), mount, mount.rootId, 'a');
    const remove = () => database().query(deleteAll);
    await expect(remove()).rejects.toMatchObject({ code: 'FS409' });
    await deleteNode(database(), file);
    await expect(remove()).rejects.toMatchObject({
      code: 'FS409',
      message: expect.stringContaining('still holds'),
    });
    await database().query('delete from filestore.nodes where id = $1', [file]);
    await expect(remove()).resolves.toEqual([{ delete_mount: '' }]);
  });

  test('with SQL waits for a writer that holds its tree', async () => {
    const { id } = await createMount(database());
    const [holder, deleter] = [await database().connect(), await database().connect()];
    await holder.query('begin');
    await holder.query('select filestore.lock_tree($1, false)', [id]);
    const deleting = await sendAndBlock(deleter, 'delete from filestore.backend_mounts where id = $1', [id]);
    expect(deleting.waits).toBe(true);
    await holder.query('commit');
    expect(await deleting.outcome).toMatchObject({ ok: true, result: { rowCount: 1 } });
  });

  test('by two callers who wait for another session does not deadlock', async () => {
    const { id } = await createMount(database());
    const [holder, first, second] = [
      await database().connect(),
      await database().connect(),
      await database().connect(),
    ];
    await holder.query('begin');
    await holder.query('select from filestore.backend_mounts where id = $1 for update', [id]);
    const deletions = [await sendAndBlock(first, deleteAll), await sendAndBlock(second, deleteAll)];
    expect(deletions.map(({ waits }) => waits)).toEqual([true, true]);
    await holder.query('commit');
    expect(await Promise.all(deletions.map(({ outcome }) => outcome))).toMatchObject([
      { ok: true },
      { ok: false, error: { constraint: 'backend_mounts_missing' } },
    ]);
  });

  test.each(['repeatable read', 'serializable'])('is refused at isolation level %s', async (level) => {
    await createMount(database());
    const session = await database().connect();
    await session.query(`begin isolation level ${level}`);
    await expect(session.query(deleteAll)).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'read_committed_check',
      message: `deleting a mount is not possible in a transaction with isolation level ${level}`,
    });
    await session.query('rollback');
  });

  test('that does not exist is refused', async () => {
    await expect(database().query("select filestore.delete_mount('none')")).rejects.toMatchObject({
      code: 'FS404',
      constraint: 'backend_mounts_missing',
    });
  });

  test.each(['commit', 'rollback'] as const)(
    'waits for a concurrent create in it, which ends in %s',
    async (ending) => {
      const mount = await createMount(database());
      const [writer, remover] = [await database().connect(), await database().connect()];
      await writer.query('begin');
      await createNode(writer, mount, mount.rootId, 'a');
      const removal = await sendAndBlock(remover, deleteAll);
      expect(removal.waits).toBe(true);
      await writer.query(ending);
      expect(await removal.outcome).toMatchObject(
        ending === 'commit' ? { ok: false, error: { code: 'FS409' } } : { ok: true },
      );
    },
  );
});

test('mounts and nodes cannot be truncated', async () => {
  await createMount(database());
  await expect(database().query('truncate filestore.backend_mounts cascade')).rejects.toMatchObject({
    code: 'FS409',
  });
  await expect(database().query('truncate filestore.nodes cascade')).rejects.toMatchObject({ code: 'FS409' });
});

describe('a mount is not deleted by the statement that writes', () => {
  test.each([
    [
      'its root',
      `update filestore.nodes set metadata = '{"a": 1}' where id = $1 returning filestore.delete_mount($2)`,
    ],
    [
      'its root, in another part of it',
      `with written as (update filestore.nodes set metadata = '{"a": 1}' where id = $1 returning id)
       select filestore.delete_mount($2) from written`,
    ],
    [
      'its root, after a function has written it once more',
      `update filestore.nodes set metadata = '{"a": 1}' where id = $1
       returning pg_temp.write_again(id), filestore.delete_mount($2)`,
    ],
  ])('%s', async (_, statement) => {
    const operator = await connectAs('operator');
    await operator.query(
      `create function pg_temp.write_again(root bigint) returns void language plpgsql as
       $$ begin update filestore.nodes set metadata = '{"b": 2}' where id = root; end $$`,
    );
    const empty = await createMount(database());
    const { key } = await one(
      database(),
      'select mount_key as key from filestore.backend_mounts where id = $1',
      [empty.id],
    );
    await expect(operator.query(statement, [empty.rootId, key])).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'first_write_check',
    });
    await operator.query('begin');
    await operator.query(`update filestore.nodes set metadata = '{"a": 1}' where id = $1`, [empty.rootId]);
    await operator.query('select filestore.delete_mount($1)', [key]);
    await operator.query('commit');
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });
});
