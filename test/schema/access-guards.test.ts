import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { withClient } from '../../src/testing/with-client.ts';
import { asSuperuser, databaseForFile } from '../support/databases/test-database.ts';
import { type LoginRole, migrateAs, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile('empty');
const createRole = rolesForFile(database);

let owner: LoginRole;
let service: LoginRole;
let session: Client;

beforeAll(async () => {
  owner = await createRole();
  await migrateAs(owner, database());
  session = await owner.connect();
});

beforeEach(async () => {
  service = await createRole();
  await session.query("select filestore.grant_access($1, 'service')", [service.name]);
});

/** The problems of a role, or of its settings. */
async function problemsOf({ name }: LoginRole) {
  const { rows } = await session.query(
    'select problem, role_name, object from filestore.check_access() where role_name = $1 or object = $2',
    [name, `role ${name}`],
  );
  return rows;
}

const SWITCH_OFF = 'set session_replication_role = replica';

describe('check_access lists who may switch the guards off', () => {
  test('by a role that a service may become', async ({ skip }) => {
    const { rows } = await session.query("select current_setting('server_version_num')::integer as version");
    skip(rows[0].version < 160_000, 'memberships have options from PostgreSQL 16 on');
    const other = await createRole();
    await asSuperuser((superuser) =>
      superuser.query(`grant set on parameter session_replication_role to ${other.quotedName};
        grant ${other.quotedName} to ${service.quotedName} with inherit false, set true`),
    );
    expect(await problemsOf(service)).toEqual([
      {
        problem: 'member of a role beyond its level',
        role_name: service.name,
        object: other.name,
      },
    ]);
  });

  test('for all sessions of the server', async () => {
    await asSuperuser((superuser) =>
      superuser.query(`grant alter system on parameter session_replication_role to ${service.quotedName}`),
    );
    expect(await problemsOf(service)).toEqual([
      { problem: 'may switch triggers off', role_name: service.name, object: 'session_replication_role' },
    ]);
  });
});

describe('check_access lists where the guards are off', () => {
  const off = ({ name }: LoginRole) => [
    { problem: 'triggers switched off', role_name: null, object: `role ${name}` },
  ];
  test('in sessions of the owner', async () => {
    await asSuperuser((superuser) => superuser.query(`alter role ${owner.quotedName} ${SWITCH_OFF}`));
    try {
      expect(await problemsOf(owner)).toEqual(off(owner));
    } finally {
      await asSuperuser((superuser) => superuser.query(`alter role ${owner.quotedName} reset all`));
    }
  });

  test('in sessions of a member of a role with a level', async () => {
    const login = await createRole();
    await asSuperuser((superuser) =>
      superuser.query(
        `grant ${service.quotedName} to ${login.quotedName}; alter role ${login.quotedName} ${SWITCH_OFF}`,
      ),
    );
    expect(await problemsOf(login)).toEqual(off(login));
  });

  test('but not in those of a role that has nothing to do with the schema', async () => {
    const other = await createRole();
    await asSuperuser((superuser) => superuser.query(`alter role ${other.quotedName} ${SWITCH_OFF}`));
    expect(await problemsOf(other)).toEqual([]);
  });

  test('in sessions such as its own, which have the setting from elsewhere', async () => {
    const url = new URL(database().superuserUrl);
    url.searchParams.set('options', '-c session_replication_role=replica');
    const { rows } = await withClient(url.href, (client) =>
      client.query("select problem from filestore.check_access() where object = 'this session'"),
    );
    expect(rows).toEqual([{ problem: 'triggers switched off' }]);
  });
});

test.each([
  [
    'schema',
    () => 'filestore',
    "select nspowner::regrole as owner from pg_namespace where nspname = 'filestore'",
  ],
  [
    'database',
    () => database().name,
    'select datdba::regrole as owner from pg_database where datname = current_database()',
  ],
])('check_access lists a role with a level that owns the %s', async (kind, object, ownerOf) => {
  await withClient(database().superuserUrl, async (superuser) => {
    const { rows: owners } = await superuser.query(ownerOf);
    const give = (to: string) => superuser.query(`alter ${kind} ${object()} owner to ${to}`);
    await give(service.quotedName);
    const { rows } = await superuser.query(
      "select object from filestore.check_access() where problem = 'owner beyond its level' and (role_name, kind) = ($1, $2)",
      [service.name, kind],
    );
    await give(owners[0]?.owner);
    expect(rows).toEqual([{ object: object() }]);
  });
});
