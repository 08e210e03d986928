import type { Client } from 'pg';
import type { AccessLevel } from '../access-levels.ts';
import { FilestoreError } from '../errors.ts';
import { paragraph, printable } from '../text.ts';

/** The role that is logged in to a test database: one of a level, or the owner, which is the user of the server's URL. */
export type TestLevel = AccessLevel | 'owner';

/** The rights of a server's user, and the template that the user has there. */
export interface ServerState {
  /** The user. */
  readonly role: string;
  readonly mayCreateDatabases: boolean;
  readonly mayCreateRoles: boolean;
  /** The name of the template with the migrations of this package, for this user. */
  readonly template: string;
  /** The owner of the database of that name, or null without one. */
  readonly templateOwner: string | null;
}

/** @param hash Hash of the last migration, which stands for all of the chain. */
export async function readState(admin: Client, hash: string): Promise<ServerState> {
  const { rows } = await admin.query<ServerState>(
    `select s.*, (select pg_get_userbyid(d.datdba) from pg_database d where d.datname = s.template) as "templateOwner"
     from (
       select
         r.rolname                            as role,
         r.rolsuper or r.rolcreatedb          as "mayCreateDatabases",
         r.rolsuper or r.rolcreaterole        as "mayCreateRoles",
         'filestore_template_' || left(
           encode(sha256(convert_to(concat_ws(' ', $1::text, r.oid, r.rolsuper or r.rolcreaterole), 'UTF8')), 'hex'),
           12
         )                                    as template
       from pg_roles r
       where r.rolname = current_user
     ) s`,
    [hash],
  );
  const [state] = rows;
  if (state === undefined) throw new Error('the server does not list the current role');
  return state;
}

/** The role of a template whose members have a level. */
export function levelRole(template: string, level: AccessLevel): string {
  return `${template}_${level}`;
}

/**
 * Refuses a user without the rights that a test database needs, and a template that another user has made: its functions would run
 * with the rights of those who test.
 * @param where The database of the connection, in words.
 * @throws {FilestoreError} `TEST_DATABASE_FAILED`
 */
export function refuseUnusable(
  where: string,
  { role, mayCreateDatabases, mayCreateRoles, template, templateOwner }: ServerState,
  level: TestLevel,
): void {
  const user = printable(role);
  const fail = (...sentences: readonly string[]): never => {
    throw new FilestoreError('TEST_DATABASE_FAILED', paragraph(...sentences));
  };
  if (!mayCreateDatabases) {
    fail(
      `No test database can be created on ${where}: role "${user}" may not create databases.`,
      `Let a superuser run: alter role "${user}" createdb; or use another server.`,
    );
  }
  if (!mayCreateRoles && level !== 'owner') {
    fail(
      `No role of level "${level}" can be created on ${where}: role "${user}" may not create roles.`,
      `Let a superuser run: alter role "${user}" createrole; or use level "owner", which needs no role.`,
    );
  }
  if (templateOwner !== null && templateOwner !== role) {
    fail(
      `No test database can be created on ${where}: its template ${template} belongs to role "${printable(templateOwner)}",`,
      `and only one of role "${user}" is copied. Drop that database, or use another server.`,
    );
  }
}
