import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { ACCESS_LEVELS, type AccessLevel } from '../../src/access-levels.ts';
import { migrationStatus } from '../../src/index.ts';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';
import { type LoginRole, migrateAs, readPrivileges, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

let owner: LoginRole;
let session: Client;

beforeAll(async () => {
  owner = await createRole();
  await migrateAs(owner, database());
  session = await owner.connect();
});

const grantAccess = (role: string | null, level: string | null) =>
  session.query('select filestore.grant_access($1, $2)', [role, level]);

async function createRoleWith(...levels: readonly AccessLevel[]): Promise<LoginRole> {
  const role = await createRole();
  for (const level of levels) await grantAccess(role.name, level);
  return role;
}

const privilegesOf = (role: LoginRole) => readPrivileges(database(), role);

describe('grant_access', () => {
  test.each(ACCESS_LEVELS.flatMap((before) => ACCESS_LEVELS.map((after) => [before, after] as const)))(
    'to %s and then to %s gives the same rights as the second alone',
    async (before, after) => {
      const privileges = await privilegesOf(await createRoleWith(before, after));
      expect(privileges).toEqual(await privilegesOf(await createRoleWith(after)));
      expect(privileges.length).toBeGreaterThan(20);
    },
  );

  test('gives each level all rights of the level before it', async () => {
    for (const [index, level] of ACCESS_LEVELS.slice(1).entries()) {
      const below = await privilegesOf(await createRoleWith(ACCESS_LEVELS[index] ?? level));
      expect(await privilegesOf(await createRoleWith(level))).toEqual(expect.arrayContaining([...below]));
    }
  });

  test('gives and takes rights also where the bookkeeping of migrations is missing, as in a restored schema', async () => {
    const role = await createRole();
    await session.query('begin');
    await session.query('drop schema graphile_migrate cascade');
    await grantAccess(role.name, 'reader');
    const reads = "select has_table_privilege($1, 'filestore.nodes', 'select') as reads";
    expect((await session.query(reads, [role.name])).rows).toEqual([{ reads: true }]);
    await session.query('select filestore.revoke_access($1)', [role.name]);
    expect((await session.query(reads, [role.name])).rows).toEqual([{ reads: false }]);
    await session.query('rollback');
  });

  test('gives no right to grant', async () => {
    const privileges = await privilegesOf(await createRoleWith('operator'));
    expect(privileges.filter((privilege) => !privilege.endsWith(' f'))).toEqual([]);
  });

  test('changes the rights of one role and not those of others', async () => {
    const other = await createRoleWith('operator');
    const before = await privilegesOf(other);
    await createRoleWith('operator', 'reader');
    expect(await privilegesOf(other)).toEqual(before);
  });

  test.each([
    ['nobody', 'FS404'],
    ['public', 'FS404'],
    [null, 'FS404'],
  ])('refuses role %s', async (role, code) => {
    await expect(grantAccess(role, 'reader')).rejects.toMatchObject({ code });
  });

  test.each(['admin', 'Reader', '', null])('refuses level %s', async (level) => {
    const role = await createRole();
    await expect(grantAccess(role.name, level)).rejects.toMatchObject({ code: 'FS422' });
    expect(await privilegesOf(role)).toEqual([]);
  });

  test.each([' With Capitals', `"quoted"'`, '; drop schema a; --', '%I%s$$'])(
    'takes a role named …%s',
    async (suffix) => {
      const role = await createRole(suffix);
      await grantAccess(role.name, 'service');
      const client = await role.connect();
      expect((await client.query('select filestore.fold_rollups()')).rowCount).toBe(1);
    },
  );

  test('refuses the owner of the schema, even when a superuser calls it', async () => {
    const superuser = await database().connectAsSuperuser();
    await superuser.query('begin');
    const grant = superuser.query('select filestore.grant_access($1, $2)', [owner.name, 'service']);
    await expect(grant.finally(() => superuser.query('rollback'))).rejects.toMatchObject({ code: 'FS422' });
  });
});

test.each([
  ['the owner', async (role: LoginRole) => grantAccess(role.name, 'reader')],
  [
    'a superuser',
    async (role: LoginRole) => {
      const superuser = await database().connectAsSuperuser();
      await superuser.query('select filestore.grant_access($1, $2)', [role.name, 'reader']);
    },
  ],
])(
  'tables and views that the owner creates later can be read when access was granted by %s',
  async (_, grant) => {
    const role = await createRole();
    await grant(role);
    await session.query('begin');
    await session.query(
      'create table filestore.later (id bigint); create view filestore.later_still as select * from filestore.later',
    );
    const { rows } = await session.query(
      `select has_table_privilege($1, 'filestore.later', 'select') as reads_table, has_table_privilege($1, 'filestore.later_still', 'select') as reads_view,
       has_table_privilege($1, 'filestore.later', 'insert, update, delete, truncate') as writes`,
      [role.name],
    );
    await session.query('rollback');
    expect(rows).toEqual([{ reads_table: true, reads_view: true, writes: false }]);
  },
);

test.each(ACCESS_LEVELS)('%s can read whether the schema is up to date', async (level) => {
  const role = await createRoleWith(level);
  expect(await migrationStatus({ connection: connectionTo(role.url) })).toMatchObject({
    state: 'current',
    pending: [],
  });
});

test('a role without a level gets an error, not the answer that the database is empty, and reads the history after the statement in it', async () => {
  const role = await createRole();
  const read = () => migrationStatus({ connection: connectionTo(role.url) });
  const refusal = await read().catch((error) => error);
  expect(refusal).toMatchObject({ code: 'HISTORY_UNREADABLE' });
  const [statement = 'none'] = /select filestore\.grant_access\(.*?\)/.exec(refusal.message) ?? [];
  expect(statement).toContain("'service'");
  await session.query(statement);
  expect(await read()).toMatchObject({ state: 'current' });
});

describe('revoke_access', () => {
  test.each(ACCESS_LEVELS)(
    'removes all rights of level %s, so that the role can be dropped',
    async (level) => {
      const role = await createRole();
      await session.query('select filestore.grant_access($1, $2)', [role.name, level]);
      const client = await role.connect();
      await session.query('select filestore.revoke_access($1)', [role.name]);
      expect(await readPrivileges(database(), role)).toEqual([]);
      expect(
        (await session.query('select from filestore.access_levels where role_name = $1', [role.name])).rows,
      ).toEqual([]);
      await expect(client.query('select from filestore.nodes')).rejects.toMatchObject({ code: '42501' });
      await client.end();
      await asAdmin(async (admin) => {
        await admin.query('begin');
        await admin.query(`drop role ${role.quotedName}`);
        await admin.query('rollback');
      });
      await session.query('select filestore.renew_access()');
      expect(await readPrivileges(database(), role)).toEqual([]);
    },
  );

  test('removes rights that were granted by hand, also from a role without a level', async () => {
    const role = await createRole();
    await session.query(`grant usage on schema filestore to ${role.quotedName}`);
    await session.query(`grant select, update (metadata) on filestore.nodes to ${role.quotedName}`);
    await session.query('select filestore.revoke_access($1)', [role.name]);
    expect(await readPrivileges(database(), role)).toEqual([]);
  });

  test('refuses the owner of the schema, whose triggers need its rights', async () => {
    await expect(session.query('select filestore.revoke_access(current_user)')).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'access_owner_check',
    });
    await session.query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('m', 's3', 'kept')",
    );
    await session.query("delete from filestore.backend_mounts where mount_key = 'm'");
  });

  test.each([
    ['a mistyped name', 'no_such_role'],
    ['null', null],
  ])('refuses %s', async (_name, roleName) => {
    await expect(session.query('select filestore.revoke_access($1)', [roleName])).rejects.toMatchObject({
      code: 'FS404',
      constraint: 'access_role_missing',
    });
  });

  test('removes the level of a role that no longer exists', async () => {
    const name = `${database().name}_dropped`;
    await asAdmin((admin) => admin.query(`create role ${name}`));
    await session.query("select filestore.grant_access($1, 'reader')", [name]);
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${name}; drop role ${name}`);
    await session.query('select filestore.revoke_access($1)', [name]);
    expect((await session.query('select from filestore.check_access()')).rows).toEqual([]);
  });
});
