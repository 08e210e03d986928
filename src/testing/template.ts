import { randomBytes } from 'node:crypto';
import type { Client } from 'pg';
import { ACCESS_LEVELS, type AccessLevel } from '../access-levels.ts';
import { codeOf } from '../cause-codes.ts';
import { runMigrations } from '../db/migrations.ts';
import { FilestoreError } from '../errors.ts';
import { databaseFromUrl } from '../settings/database.ts';
import { replaceInUrl } from '../settings/database-url.ts';
import { paragraph } from '../text.ts';
import { onDatabase } from './connect.ts';
import { levelRole, type ServerState } from './server-state.ts';

/** Key of the lock of a worker that prepares a server: the letters "fs tests" as one number. */
const LOCK_KEY = '7382279898480735347';
/** How long others wait for it. A template takes a few seconds. */
const LOCK_WAIT = '2min';
const LOCK_NOT_AVAILABLE = '55P03';
const DUPLICATE_DATABASE = '42P04';

/** A name for a new database and its role, with the server's time, by which an abandoned one is recognised. */
export async function newName(admin: Client): Promise<string> {
  const { rows } = await admin.query<{ now: string }>(
    'select floor(extract(epoch from clock_timestamp()))::bigint as now',
  );
  return `filestore_test_${rows[0]?.now}_${randomBytes(6).toString('hex')}`;
}

/**
 * Creates the template, unless another worker does: the others wait.
 * @param url URL of a database of the server.
 * @param filename The last migration, for the comment.
 */
export async function makeTemplate(
  admin: Client,
  url: string,
  state: ServerState,
  filename: string,
): Promise<void> {
  await lock(admin);
  try {
    const { rows } = await admin.query('select from pg_database where datname = $1', [state.template]);
    if (rows.length === 0) await migrateDraft(admin, url, state, filename);
  } finally {
    await unlock(admin);
  }
}

/** A killed worker leaves a draft, which later runs remove, and never a template that is not complete. */
async function migrateDraft(
  admin: Client,
  url: string,
  { template, mayCreateRoles }: ServerState,
  filename: string,
): Promise<void> {
  const draft = await newName(admin);
  await admin.query(`create database ${draft} encoding 'UTF8' template template0`);
  try {
    const draftUrl = replaceInUrl('server', url, { database: draft });
    await runMigrations({ connectionString: draftUrl });
    if (mayCreateRoles) {
      await onDatabase(databaseFromUrl('server', draftUrl), async (owner) => {
        for (const level of ACCESS_LEVELS) await grantLevel(owner, levelRole(template, level), level);
      });
    }
    await admin.query(
      `comment on database ${draft} is 'Template of @apphub/filestore for tests, migrated to ${filename}, last used ${today()}'`,
    );
    // No one can connect to it, which would make clones fail.
    await admin.query(`alter database ${draft} allow_connections false`);
    await admin.query(`alter database ${draft} rename to ${template}`);
  } catch (error) {
    await admin.query(`drop database if exists ${draft}`).catch(() => undefined);
    // Workers that connect to different databases of the server do not share the lock.
    if (codeOf(error) !== DUPLICATE_DATABASE) throw error;
  }
}

/** Its members are the roles of the test databases. They get their rights from it, which is faster than to grant them. */
async function grantLevel(owner: Client, role: string, level: AccessLevel): Promise<void> {
  // It is there if the template was dropped, or if two workers prepare it.
  await owner.query(`
    do $$ begin
      create role ${role};
    exception when duplicate_object or unique_violation then
      null;
    end $$`);
  await owner.query('select filestore.grant_access($1, $2)', [role, level]);
}

/** Records that a template is in use, at most once a day. */
export async function markUsed(admin: Client, template: string): Promise<void> {
  const { rows } = await admin.query<{ comment: string }>(
    `select shobj_description(oid, 'pg_database') as comment from pg_database where datname = $1`,
    [template],
  );
  const used = rows[0]?.comment?.replace(/\S+$/, today());
  if (used !== undefined && used !== rows[0]?.comment) {
    await admin.query(`comment on database ${template} is '${used.replaceAll("'", "''")}'`);
  }
}

/** The day in UTC, such as `2026-12-01`. */
function today(): string {
  return new Date().toISOString().slice(0, 10);
}

async function lock(admin: Client): Promise<void> {
  await admin.query(`set lock_timeout = '${LOCK_WAIT}'`);
  await admin.query(`select pg_advisory_lock(${LOCK_KEY})`).catch((cause) => {
    if (codeOf(cause) !== LOCK_NOT_AVAILABLE) throw cause;
    const message = paragraph(
      `Another process has prepared the template of test databases for more than ${LOCK_WAIT}.`,
      'End that process, and run the tests again.',
    );
    throw new FilestoreError('TEST_DATABASE_FAILED', message, { cause });
  });
}

/** Takes the lock if no other worker has it. */
export async function tryLock(admin: Client): Promise<boolean> {
  const { rows } = await admin.query<{ locked: boolean }>(
    `select pg_try_advisory_lock(${LOCK_KEY}) as locked`,
  );
  return rows[0]?.locked ?? false;
}

export async function unlock(admin: Client): Promise<void> {
  await admin.query(`select pg_advisory_unlock(${LOCK_KEY})`);
}
