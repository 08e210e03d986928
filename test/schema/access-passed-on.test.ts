import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { migrateAs, readPrivileges, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

let session: Client;

beforeAll(async () => {
  const owner = await createRole();
  await migrateAs(owner, database());
  session = await owner.connect();
});

test('rights that a role has passed on are named when its level is renewed, with statements that take them back', async () => {
  const [role, other] = [await createRole(), await createRole()];
  await session.query("select filestore.grant_access($1, 'service')", [role.name]);
  await session.query(
    `grant select, update (metadata) on filestore.nodes to ${role.quotedName} with grant option`,
  );
  const client = await role.connect();
  await client.query(`grant update (metadata) on filestore.nodes to ${other.quotedName}`);

  const calls = [
    'renew_access()',
    `grant_access('${role.name}', 'service')`,
    `revoke_access('${role.name}')`,
  ];
  for (const call of calls) {
    await expect(session.query(`select filestore.${call}`)).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'access_passed_on',
      message: `role "${role.name}" has passed rights on the schema on to: ${other.name}`,
    });
  }
  const { hint } = await session.query('select filestore.renew_access()').catch((error) => error);
  for (const [statement] of String(hint).matchAll(/revoke [^;.]+ from \S+ cascade/g)) {
    await session.query(statement);
  }
  await session.query("select filestore.grant_access($1, 'service')", [role.name]);
  expect(await readPrivileges(database(), other)).toEqual([]);
  expect((await session.query('select * from filestore.check_access()')).rows).toEqual([]);
});
