import type { Client } from 'pg';
import { ACCESS_LEVELS } from '../access-levels.ts';
import { codeOf } from '../cause-codes.ts';
import { levelRole } from './server-state.ts';
import { markUsed, tryLock, unlock } from './template.ts';

const INSUFFICIENT_PRIVILEGE = '42501';

/**
 * Test databases without a connection, and roles without a database. The minute is for a run that has created its database
 * and not connected yet.
 */
const FIND_LEFTOVERS = `
  select o.name
  from (
    select d.datname as name
    from pg_database d
    where d.datdba = (select r.oid from pg_roles r where r.rolname = current_user)
      and not exists (select from pg_stat_activity a where a.datid = d.oid)
    union all
    select r.rolname
    from pg_roles r
    where pg_has_role(r.oid, 'member')
      and not exists (select from pg_database d where d.datname = r.rolname)
  ) o
  where to_timestamp(substring(o.name from '^filestore_test_([0-9]{10})_[0-9a-f]{12}$')::bigint)
    < clock_timestamp() - interval '1 minute'`;

const FIND_OLD_TEMPLATES = `
  select d.datname as name
  from pg_database d
  where d.datdba = (select r.oid from pg_roles r where r.rolname = current_user)
    and d.datname ~ '^filestore_template_[0-9a-f]{12}$'
    and substring(shobj_description(d.oid, 'pg_database') from 'last used ([0-9-]{10})$')
      < to_char(current_date - 7, 'YYYY-MM-DD') collate "C"`;

/**
 * Removes test databases, roles and templates that are not used any more, unless another worker does. The template of
 * this package stays, and is marked as used.
 */
export async function removeLeftovers(admin: Client, template: string): Promise<void> {
  if (!(await tryLock(admin))) return;
  try {
    await markUsed(admin, template);
    const { rows: left } = await admin.query<{ name: string }>(FIND_LEFTOVERS);
    for (const { name } of left) await tryTo(() => dropIfUnused(admin, name));
    const { rows: old } = await admin.query<{ name: string }>(FIND_OLD_TEMPLATES);
    for (const { name } of old) await tryTo(() => dropTemplate(admin, name));
  } finally {
    await unlock(admin);
  }
}

/** A leftover that cannot be removed, such as a database to which someone has just connected, must not fail a test. */
async function tryTo(work: () => Promise<void>): Promise<void> {
  await work().catch(() => undefined);
}

async function dropIfUnused(admin: Client, name: string): Promise<void> {
  await admin.query(`drop database if exists ${name}`);
  await dropRole(admin, name);
}

/** Drops a template and the roles of its levels. */
export async function dropTemplate(admin: Client, template: string): Promise<void> {
  await admin.query(`drop database if exists ${template}`);
  for (const level of ACCESS_LEVELS) await dropRole(admin, levelRole(template, level));
}

/** Drops a test database and its role, and ends their sessions. */
export async function dropTestDatabase(admin: Client, name: string): Promise<void> {
  await admin.query(`drop database if exists ${name} with (force)`).catch((error) => {
    // Older servers do not let an ordinary role end the process of autovacuum so. Without force, they end it on their own.
    if (codeOf(error) !== INSUFFICIENT_PRIVILEGE) throw error;
    return admin.query(`drop database if exists ${name}`);
  });
  await dropRole(admin, name);
}

/** A role that may not create roles may not drop one either, not even one that does not exist. */
async function dropRole(admin: Client, name: string): Promise<void> {
  if (!(await hasRole(admin, name))) return;
  await admin.query(`drop role if exists ${name}`).catch(async (error) => {
    // The server fails if another worker drops it at the same moment.
    if (await hasRole(admin, name)) throw error;
  });
}

async function hasRole(admin: Client, name: string): Promise<boolean> {
  const { rows } = await admin.query('select from pg_roles where rolname = $1', [name]);
  return rows.length > 0;
}
