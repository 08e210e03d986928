import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';
import { migrateAs, readPrivileges, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

let session: Client;

beforeAll(async () => {
  const owner = await createRole();
  await migrateAs(owner, database());
  session = await owner.connect();
});

describe('revoke_access', () => {
  test.each(['reader', 'service', 'operator'])(
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
