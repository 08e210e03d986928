import type { StartedPostgreSqlContainer } from '@testcontainers/postgresql';
import { expect, inject, test } from 'vitest';
import { ACCESS_LEVELS } from '../../src/access-levels.ts';
import { assertMigrated, verifySchema } from '../../src/index.ts';
import { createNode, ensureDirectory } from '../../src/sql/index.ts';
import type { TestLevel } from '../../src/testing/index.ts';
import {
  IS_THERE,
  type ServiceDatabase,
  serviceDatabasesForEachTest,
} from '../support/databases/service-databases.ts';
import { asAdmin } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { one } from '../support/rows/nodes.ts';

const create = serviceDatabasesForEachTest();

const ADD_MOUNT =
  "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')";
const REFUSED = { code: '42501' };

const isThere = ({ name }: ServiceDatabase) => asAdmin((admin) => one(admin, IS_THERE, [name]));

test('a service is logged in by default, and can use its functions', async () => {
  const db = await create();
  await db.pool.query(ADD_MOUNT);
  const { id } = await ensureDirectory(db.pool, { mountKey: 'media', path: 'a' });
  const { path } = await createNode(db.pool, { parentId: id, name: 'b' });
  expect(path).toBe('a/b');
  await expect(db.pool.query("select filestore.purge_deleted('1 day')")).rejects.toMatchObject(REFUSED);
});

test.each<[TestLevel, { readonly mayWrite: boolean; readonly mayPurge: boolean }]>([
  ['reader', { mayWrite: false, mayPurge: false }],
  ['service', { mayWrite: true, mayPurge: false }],
  ['operator', { mayWrite: true, mayPurge: true }],
  ['owner', { mayWrite: true, mayPurge: true }],
])('a role of level %s has its rights', async (level, { mayWrite, mayPurge }) => {
  const db = await create({ level });
  const outcome = (statement: string) =>
    db.pool.query(statement).then(
      () => true,
      ({ code }) => (code === REFUSED.code ? false : code),
    );
  expect(await outcome('select from filestore.nodes')).toBe(true);
  expect(await outcome(ADD_MOUNT)).toBe(mayWrite);
  expect(await outcome("select filestore.purge_deleted('1 day')")).toBe(mayPurge);
  expect(await outcome('create table filestore.own ()')).toBe(level === 'owner');
});

test.each<TestLevel>([...ACCESS_LEVELS, 'owner'])(
  'a database of level %s is migrated, and has the schema of the package',
  async (level) => {
    const { url, ownerUrl } = await create({ level });
    await assertMigrated({ connectionString: url });
    expect(await verifySchema({ connectionString: ownerUrl })).toMatchObject({ state: 'same' });
  },
);

test('the URL logs the role of the database in, and the owner is the user of the server', async () => {
  const db = await create();
  expect(decodeURIComponent(new URL(db.url).username)).toBe(db.name);
  const { rows } = await db.pool.query(
    "select session_user as role, pg_get_userbyid(nspowner) as owner from pg_namespace where nspname = 'filestore'",
  );
  expect(rows).toEqual([{ role: db.name, owner: decodeURIComponent(new URL(inject('adminUrl')).username) }]);
});

test('a pool returns ids as strings, as that of a service does', async () => {
  const db = await create();
  await db.pool.query(ADD_MOUNT);
  const { rows } = await db.pool.query('select id, created_at from filestore.backend_mounts');
  expect(rows).toEqual([{ id: expect.any(String), created_at: expect.any(Date) }]);
});

test('databases that are created at once have one template, and only their own rows', async () => {
  const all = await Promise.all(Array.from({ length: 6 }, () => create()));
  await Promise.all(all.slice(0, 3).map(({ pool }) => pool.query(ADD_MOUNT)));
  const counts = all.map(async ({ pool }) => {
    const { rows } = await pool.query('select count(*)::int from filestore.backend_mounts');
    return rows[0].count;
  });
  expect(await Promise.all(counts)).toEqual([1, 1, 1, 0, 0, 0]);
  const templates = await asAdmin((admin) =>
    admin.query(
      `select datallowconn from pg_database
       where datdba = (select oid from pg_roles where rolname = current_user)
         and shobj_description(oid, 'pg_database') like '%migrated to ' || $1 || '%'`,
      [committedMigrations().at(-1)],
    ),
  );
  expect(templates.rows).toEqual([{ datallowconn: false }]);
});

test('a closed database is gone with its role, although the test did not return its connections', async () => {
  const db = await create();
  const [idle, busy] = await Promise.all([db.pool.connect(), db.pool.connect()]);
  await idle.query('begin');
  const waiting = busy.query('select pg_sleep(600)');
  const ended = expect(waiting).rejects.toThrow();
  expect(await isThere(db)).toEqual({ database: true, role: true });
  await Promise.all([db.close(), db.close()]);
  await ended;
  expect(await isThere(db)).toEqual({ database: false, role: false });
});

test('a server may be an object with its URL, or a started container', async () => {
  const url = inject('adminUrl');
  const container: Pick<StartedPostgreSqlContainer, 'getConnectionUri'> = { getConnectionUri: () => url };
  for (const server of [{ url }, container]) {
    const db = await create({ server });
    expect((await db.pool.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
  }
});
