import type { Client } from 'pg';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { ACCESS_LEVELS, type AccessLevel } from '../../src/access-levels.ts';
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

// Rights are renewed and checked for every role that has a level.
afterEach(async () => {
  await session.query('select filestore.revoke_access(role_name) from filestore.access_levels');
});

async function createRoleWith(level: AccessLevel): Promise<LoginRole> {
  const role = await createRole();
  await session.query('select filestore.grant_access($1, $2)', [role.name, level]);
  return role;
}

/** The result of check_access as lines; the owner calls it. */
async function reported(): Promise<readonly string[]> {
  const { rows } = await session.query(
    `select concat_ws(' ', problem, role_name, kind, object, column_name, privilege) as line from filestore.check_access()`,
  );
  return rows.map(({ line }) => line);
}

async function relations(kinds = 'rvm'): Promise<readonly string[]> {
  const rows = await database().query<{ name: string }>(
    `select oid::regclass::text as name from pg_class
     where relnamespace = 'filestore'::regnamespace and relkind = any (string_to_array($1, null)::"char"[]) order by 1`,
    [kinds],
  );
  return rows.map(({ name }) => name);
}

test('granting a level prints no warning', async () => {
  const notices: string[] = [];
  const listen = ({ message = '' }: { message?: string | undefined }) => notices.push(message);
  session.on('notice', listen);
  await createRoleWith('service');
  session.off('notice', listen);
  expect(notices).toEqual([]);
});

describe('no role can block all others with a table lock:', () => {
  test.each(ACCESS_LEVELS)('%s', async (level) => {
    const client = await (await createRoleWith(level)).connect();
    const locked: string[] = [];
    for (const table of await relations('r')) {
      for (const mode of ['share', 'share row exclusive', 'exclusive', 'access exclusive']) {
        await client.query('begin');
        await client
          .query(`lock table ${table} in ${mode} mode`)
          .then(() => locked.push(table))
          .catch((error) => expect(error).toMatchObject({ code: '42501' }));
        await client.query('rollback');
      }
    }
    expect(locked).toEqual([]);
  });
});

describe('insert and update are granted', () => {
  test.each(ACCESS_LEVELS)('to %s on columns, never on a whole table', async (level) => {
    const { name } = await createRoleWith(level);
    expect(
      await database().query(
        `select c.oid::regclass::text as table, p.privilege
         from pg_class c cross join unnest(array['INSERT', 'UPDATE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p (privilege)
         where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v')
           and has_table_privilege($1, c.oid, p.privilege)`,
        [name],
      ),
    ).toEqual([]);
  });

  test.each(['service', 'operator'] as const)('to %s on every content column of nodes', async (level) => {
    const { name } = await createRoleWith(level);
    const { rows: columns } = await session.query(
      `select c.name, has_column_privilege($1, 'filestore.nodes', c.name, 'INSERT') and has_column_privilege($1, 'filestore.nodes', c.name, 'UPDATE') as writable
       from unnest(filestore.content_columns()) c (name)`,
      [name],
    );
    expect(columns.length).toBeGreaterThan(5);
    expect(columns.filter(({ writable }) => !writable)).toEqual([]);
  });

  test('to reader on no column', async () => {
    const { name } = await createRoleWith('reader');
    expect(
      await database().query(
        `select c.oid::regclass::text as table from pg_class c
         where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v')
           and has_any_column_privilege($1, c.oid, 'INSERT, UPDATE')`,
        [name],
      ),
    ).toEqual([]);
  });
});

test('after renew_access, a service may write a column that was added to mounts', async () => {
  const role = await createRoleWith('service');
  const client = await role.connect();
  await session.query('alter table filestore.backend_mounts add column tried_hint text');
  try {
    const insert = `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, tried_hint) values ('m', 'local', '/m', 'ada')`;
    await expect(client.query(insert)).rejects.toMatchObject({ code: '42501' });
    expect(await reported()).toContain(
      `missing ${role.name} column filestore.backend_mounts tried_hint INSERT`,
    );
    await session.query('select filestore.renew_access()');
    expect(await reported()).toEqual([]);
    await client.query(insert);
    await client.query("update filestore.backend_mounts set tried_hint = 'bob' where mount_key = 'm'");
    expect((await client.query('select tried_hint, version from filestore.backend_mounts')).rows).toEqual([
      { tried_hint: 'bob', version: 2 },
    ]);
  } finally {
    await session.query("delete from filestore.backend_mounts where mount_key = 'm'");
    await session.query('alter table filestore.backend_mounts drop column tried_hint');
  }
});

describe('renew_access', () => {
  test('removes the level of a role that no longer exists, with a warning', async () => {
    const kept = await createRoleWith('service');
    const name = `${database().name}_gone`;
    await asAdmin((admin) => admin.query(`create role ${name}`));
    await session.query("select filestore.grant_access($1, 'service')", [name]);
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${name}; drop role ${name}`);
    expect(await reported()).toEqual([`role is gone ${name} role`]);

    const notices: string[] = [];
    const listen = ({ message = '' }: { message?: string | undefined }) => notices.push(message);
    session.on('notice', listen);
    await session.query('select filestore.renew_access()');
    await session.query('select filestore.renew_access()');
    session.off('notice', listen);
    expect(notices).toEqual([
      `role "${name}" no longer exists: its level service is removed from filestore.access_levels`,
    ]);
    const { rows } = await session.query(
      'select role_name from filestore.access_levels where role_name = any ($1)',
      [[name, kept.name]],
    );
    expect(rows).toEqual([{ role_name: kept.name }]);
  });

  test('gives no rights to a new role with the name of one that had a level, until it gets the level itself', async () => {
    const name = `${database().name}_again`;
    const quotedName = `"${name}"`;
    const create = () => asAdmin((admin) => admin.query(`create role ${quotedName}`));
    await create();
    await session.query("select filestore.grant_access($1, 'operator')", [name]);
    const superuser = await database().connectAsSuperuser();
    await superuser.query(`drop owned by ${quotedName}; drop role ${quotedName}`);
    await create();
    const notices: string[] = [];
    const listen = ({ message = '' }: { message?: string | undefined }) => notices.push(message);
    session.on('notice', listen);
    await session.query('select filestore.renew_access()');
    session.off('notice', listen);
    expect(notices).toEqual([
      expect.stringMatching(`^role "${name}" is not the role that got level operator, and gets no rights: `),
    ]);
    const reads = async () =>
      (await session.query("select has_schema_privilege($1, 'filestore', 'usage') as reads", [name])).rows[0]
        .reads;
    expect(await reads()).toBe(false);
    expect(await reported()).toEqual([`role was replaced ${name} role`]);

    await session.query("select filestore.grant_access($1, 'reader')", [name]);
    expect(await reads()).toBe(true);
    expect(await reported()).toEqual([]);
    await session.query('select filestore.revoke_access($1)', [name]);
    await asAdmin((admin) => admin.query(`drop role ${quotedName}`));
  });

  test('grants nothing by a number that another role has', async () => {
    const [role, other] = [await createRoleWith('operator'), await createRole()];
    await session.query(
      'update filestore.access_levels set role_oid = (select oid from pg_roles where rolname = $2) where role_name = $1',
      [role.name, other.name],
    );
    await session.query('select filestore.renew_access()');
    expect(await readPrivileges(database(), other)).toEqual([]);
    expect(await reported()).toEqual([`role was replaced ${role.name} role`]);
    await session.query('select filestore.revoke_access($1)', [role.name]);
  });

  test('changes nothing for a role that has exactly the rights of its level', async () => {
    const role = await createRoleWith('operator');
    const before = await readPrivileges(database(), role);
    await session.query('select filestore.renew_access()');
    expect(await readPrivileges(database(), role)).toEqual(before);
  });
});

describe('check_access', () => {
  test.each([
    ['grant delete on filestore.nodes to', 'table filestore.nodes DELETE'],
    ['grant update (path) on filestore.nodes to', 'column filestore.nodes path UPDATE'],
    ['grant update (metadata) on filestore.snapshots to', 'column filestore.snapshots metadata UPDATE'],
    [
      'grant execute on function filestore.grant_access(text, text) to',
      'function filestore.grant_access(text,text) EXECUTE',
    ],
    [
      'grant execute on procedure filestore.erase_mount(text, integer) to',
      'function filestore.erase_mount(text,integer) EXECUTE',
    ],
    ['grant usage on sequence filestore.nodes_id_seq to', 'sequence filestore.nodes_id_seq USAGE'],
    ['grant create on schema filestore to', 'schema filestore CREATE'],
    ['grant select on filestore.view_filestore_directories to', ''],
  ])('reports the right of "%s" <service>, until access is renewed', async (grant, line) => {
    const role = await createRoleWith('service');
    expect(await reported()).toEqual([]);
    await session.query(`${grant} ${role.quotedName}`);
    expect(await reported()).toEqual(line === '' ? [] : [`beyond its level ${role.name} ${line}`]);
    await session.query('select filestore.renew_access()');
    expect(await reported()).toEqual([]);
  });

  test.each([
    ['revoke select on filestore.snapshots from', 'table filestore.snapshots SELECT'],
    ['revoke update (metadata) on filestore.nodes from', 'column filestore.nodes metadata UPDATE'],
    [
      'revoke execute on function filestore.lock_tree(bigint, boolean) from',
      'function filestore.lock_tree(bigint,boolean) EXECUTE',
    ],
    ['revoke usage on schema filestore from', 'schema filestore USAGE'],
  ])('reports the missing right after "%s" <service>, until access is renewed', async (revoke, line) => {
    const role = await createRoleWith('service');
    await session.query(`${revoke} ${role.quotedName}`);
    expect(await reported()).toEqual([`missing ${role.name} ${line}`]);
    await session.query('select filestore.renew_access()');
    expect(await reported()).toEqual([]);
  });

  test('reports rights of a role without a level, and of PUBLIC', async () => {
    const role = await createRole();
    await session.query('begin');
    await session.query(`grant select on filestore.nodes to ${role.quotedName}, public`);
    await session.query('create function filestore.open() returns integer language sql return 1');
    expect([...(await reported())].sort()).toEqual([
      'beyond its level PUBLIC function filestore.open() EXECUTE',
      'beyond its level PUBLIC table filestore.nodes SELECT',
      `beyond its level ${role.name} table filestore.nodes SELECT`,
    ]);
    await session.query('rollback');
  });
});

test('grant_access fails and changes nothing when the caller is not the owner, whatever rights the caller has', async () => {
  const [caller, target] = [await createRoleWith('operator'), await createRole()];
  const client = await caller.connect();
  const grant = () => client.query("select filestore.grant_access($1, 'service')", [target.name]);
  await expect(grant()).rejects.toMatchObject({ code: '42501' });
  await session.query(`grant all on all functions in schema filestore to ${caller.quotedName}`);
  await expect(grant()).rejects.toMatchObject({ code: '42501' });
  await session.query(`grant all on all tables in schema filestore to ${caller.quotedName}`);
  await expect(grant()).rejects.toMatchObject({ code: '42501' });
  expect(await readPrivileges(database(), target)).toEqual([]);
  expect(
    (await session.query('select from filestore.access_levels where role_name = $1', [target.name])).rows,
  ).toEqual([]);
  await session.query('select filestore.renew_access()');
});
