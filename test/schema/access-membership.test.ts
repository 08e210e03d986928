import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { asAdmin, databaseForFile } from '../support/databases/test-database.ts';
import { migrateAs, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

let owner: { readonly quotedName: string };
let session: Client;
let hasOptions: boolean;

beforeAll(async () => {
  const role = await createRole();
  await migrateAs(role, database());
  owner = role;
  session = await role.connect();
  const { rows } = await session.query("select current_setting('server_version_num')::integer as version");
  hasOptions = rows[0].version >= 160_000;
});

const NOTHING = 'inherit false, set false, admin false';
const RIGHTS = 'inherit true, set false, admin false';

describe('a role with a level is reported as a member of the owner', () => {
  // How the role is a member of the first other role, that one of the second, and that one of the owner.
  test.for<readonly [way: string, first: string, second: string, third: string, isReported: boolean]>([
    ['by the rights of each role between', RIGHTS, RIGHTS, RIGHTS, true],
    ['by becoming the first one', 'inherit false, set true, admin false', RIGHTS, RIGHTS, true],
    ['by granting itself the first one', 'inherit false, set false, admin true', RIGHTS, RIGHTS, true],
    ['by rights to grant the second one', RIGHTS, 'inherit false, set false, admin true', RIGHTS, true],
    ['by rights to grant the owner', RIGHTS, RIGHTS, 'inherit false, set false, admin true', true],
    [
      'by becoming one that may grant the second one',
      'inherit false, set true, admin false',
      'inherit false, set false, admin true',
      RIGHTS,
      true,
    ],
    ['but not by a membership without options', NOTHING, 'inherit true, set true, admin true', RIGHTS, false],
    [
      'nor where the second role has one without options',
      RIGHTS,
      NOTHING,
      'inherit true, set true, admin true',
      false,
    ],
    ['nor where the third role has one without options', RIGHTS, RIGHTS, NOTHING, false],
    [
      'nor by becoming a role through one that it may not become',
      RIGHTS,
      'inherit false, set true, admin false',
      RIGHTS,
      false,
    ],
  ])('%s', async ([, first, second, third, isReported], { skip }) => {
    skip(!hasOptions, 'memberships have options from PostgreSQL 16 on');
    const [member, near, far] = [await createRole(), await createRole(), await createRole()];
    await session.query("select filestore.grant_access($1, 'reader')", [member.name]);
    await asAdmin(async (admin) => {
      await admin.query(`grant ${owner.quotedName} to ${far.quotedName} with ${third}`);
      await admin.query(`grant ${far.quotedName} to ${near.quotedName} with ${second}`);
      await admin.query(`grant ${near.quotedName} to ${member.quotedName} with ${first}`);
    });
    const { rows } = await session.query(
      'select problem, role_name, object from filestore.check_access() where role_name = $1',
      [member.name],
    );
    const problem = 'member of a role beyond its level';
    expect(rows).toEqual(isReported ? [{ problem, role_name: member.name, object: near.name }] : []);
  });
});
