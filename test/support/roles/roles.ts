import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import pg, { type Client } from 'pg';
import { afterAll, afterEach } from 'vitest';
import { connectionTo } from '../../../harness/connection.ts';
import type { AccessLevel } from '../../../src/access-levels.ts';
import { runMigrations } from '../../../src/index.ts';
import { withClient } from '../../../src/testing/with-client.ts';
import { asAdmin, type TestDatabase } from '../databases/test-database.ts';

/** A role that can log in to a test's database. */
export interface LoginRole {
  readonly name: string;
  /** The name, quoted for SQL. */
  readonly quotedName: string;
  readonly url: string;
  connect(): Promise<Client>;
}

/**
 * Login roles for the tests of a file, dropped after it with everything they own and their rights. Call it
 * after the function for the database, since the last one called is cleaned up first.
 */
export function rolesForFile(database: () => TestDatabase): (suffix?: string) => Promise<LoginRole> {
  return provideRoles(database, afterAll);
}

/** The same for each test of a file. */
export function rolesForEachTest(database: () => TestDatabase): (suffix?: string) => Promise<LoginRole> {
  return provideRoles(database, afterEach);
}

function provideRoles(
  database: () => TestDatabase,
  after: (work: () => Promise<void>) => void,
): (suffix?: string) => Promise<LoginRole> {
  const names: string[] = [];
  const clients: Client[] = [];

  after(async () => {
    await Promise.allSettled(clients.splice(0).map((client) => client.end()));
    const superuser = await database().connectAsSuperuser();
    // In reverse order: an owner was created before the roles that it granted rights to.
    for (const name of names.splice(0).reverse().map(pg.escapeIdentifier)) {
      // A role cannot be dropped while it owns objects or has rights in the database.
      await superuser.query(`drop owned by ${name} cascade`);
      await superuser.query(`drop role ${name}`);
    }
    await superuser.end();
  });

  return async (suffix = '') => {
    // Roles belong to the cluster: the unique name of the database makes their names unique.
    const name = `${database().name}_${names.length}${suffix}`;
    const quotedName = pg.escapeIdentifier(name);
    const password = randomBytes(9).toString('hex');
    names.push(name);
    await asAdmin((admin) => admin.query(`create role ${quotedName} login password '${password}'`));
    const url = new URL(database().url);
    url.username = encodeURIComponent(name);
    url.password = password;
    return {
      name,
      quotedName,
      url: url.href,
      async connect() {
        const client = new pg.Client(url.href);
        client.on('error', () => undefined);
        await client.connect();
        clients.push(client);
        return client;
      },
    };
  };
}

/**
 * Migrates an empty database as a role with no other rights, as in production. With a superuser as their owner, missing
 * rights of the schema's functions would not show.
 */
export async function migrateAs(owner: LoginRole, database: TestDatabase): Promise<void> {
  await database.query(`grant create on database ${database.name} to ${owner.quotedName}`);
  await runMigrations({ connection: connectionTo(owner.url) });
  // A file of "npm run mutate": what it changes in the schema of all other tests.
  const change = process.env.FILESTORE_MUTANT;
  if (change !== undefined)
    await withClient(owner.url, (client) => client.query(readFileSync(change, 'utf8')));
}

/** All rights of the role in the database, one per line. */
export async function readPrivileges(database: TestDatabase, role: LoginRole): Promise<readonly string[]> {
  const rows = await database.query<{ privilege: string }>(
    `select concat_ws(' ', o.object, a.privilege_type, a.is_grantable) as privilege
     from (
       select oid::regclass::text as object, relacl as acl from pg_class
       union all select a.attrelid::regclass || '.' || a.attname, a.attacl from pg_attribute a
       union all select oid::regprocedure::text, proacl from pg_proc
       union all select oid::regtype::text, typacl from pg_type
       union all select oid::regnamespace::text, nspacl from pg_namespace
       union all select 'later ' || defaclobjtype::text || ' of ' || defaclrole::regrole, defaclacl from pg_default_acl
     ) o
     cross join lateral aclexplode(o.acl) a
     where a.grantee = (select oid from pg_roles where rolname = $1)
     order by 1`,
    [role.name],
  );
  return rows.map(({ privilege }) => privilege);
}

/** Connections to the database of a file as new roles with a level. Call it after the function for the database. */
export function levelsForFile(database: () => TestDatabase): (level: AccessLevel) => Promise<Client> {
  const createRole = rolesForFile(database);
  return async (level) => {
    const role = await createRole();
    await database().query('select filestore.grant_access($1, $2)', [role.name, level]);
    return role.connect();
  };
}
