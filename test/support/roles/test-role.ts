import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { dropTemplate } from '../../../src/testing/leftovers.ts';

/** Who runs the tests: a superuser, or an ordinary owner, as managed servers give. */
export type TestRole = 'superuser' | 'owner';

export function testRole(env: NodeJS.ProcessEnv = process.env): TestRole {
  const role = env.TEST_ROLE ?? 'superuser';
  if (role === 'superuser' || role === 'owner') return role;
  throw new Error(`TEST_ROLE must be superuser or owner, and is "${role}".`);
}

export interface OwnerOptions {
  /** Also lets it replicate: create subscriptions, and roles that replicate. Only a superuser can on PostgreSQL 15. */
  readonly replicates?: boolean;
}

/**
 * Creates a role that may create databases and roles, and nothing else.
 * @param superuser Connection to the server.
 * @param url URL of the database of that connection.
 * @returns the URL as the new role.
 */
export async function createOwner(
  superuser: pg.Client,
  url: string,
  name: string,
  { replicates = false }: OwnerOptions = {},
): Promise<string> {
  const quotedName = pg.escapeIdentifier(name);
  const password = randomBytes(9).toString('hex');
  await superuser.query(
    `create role ${quotedName} login createdb createrole ${replicates ? 'replication' : ''} password '${password}'`,
  );
  if (replicates) await superuser.query(`grant pg_create_subscription to ${quotedName}`);
  const own = new URL(url);
  own.username = encodeURIComponent(name);
  own.password = password;
  return own.href;
}

/** Drops an owner with the templates of test databases that were made as it. */
export async function dropOwner(superuser: pg.Client, name: string): Promise<void> {
  const { rows: templates } = await superuser.query(
    'select datname from pg_database where pg_get_userbyid(datdba) = $1',
    [name],
  );
  for (const { datname } of templates) await dropTemplate(superuser, datname);
  await superuser.query(`drop role ${pg.escapeIdentifier(name)}`);
}
