import { isConnectionLoss } from '../session/connection-error.ts';
import { lastRows, type Queryable } from '../session/session.ts';
import { underPinnedSettings } from '../settings/server-settings.ts';
import { paragraph, printable } from '../text.ts';

/** The result of comparing the rights of roles with the levels that `filestore.grant_access` recorded. */
export type RightsCheck =
  | { readonly state: 'same' }
  /** One line for each right, with the statement that corrects it. */
  | { readonly state: 'drifted'; readonly differences: readonly string[] }
  /** The rights were not compared. */
  | { readonly state: 'unchecked'; readonly reason: string };

/** The rights of this role, read without an error in the server's log. */
const ASK = underPinnedSettings(`
select
  current_user as role,
  pg_catalog.quote_literal(current_user) as literal,
  p.oid is not null as exists,
  pg_catalog.has_schema_privilege(n.oid, 'usage')
    and pg_catalog.has_function_privilege(p.oid, 'execute') as allowed
from pg_catalog.pg_namespace n
left join pg_catalog.pg_proc p on p.pronamespace = n.oid and p.proname = 'check_access' and p.pronargs = 0
where n.nspname = 'filestore'`);

/** One row for all columns of a table with the same problem. */
const DIFFERENCES = underPinnedSettings(`
select
  c.problem,
  c.role_name as role,
  l.level,
  c.privilege,
  c.kind,
  c.object,
  pg_catalog.string_agg(c.column_name, ', ' order by c.column_name) as columns,
  case c.problem
    when 'missing' then pg_catalog.format('select filestore.grant_access(%L, %L)', c.role_name, l.level)
    when 'role is gone' then pg_catalog.format('select filestore.revoke_access(%L)', c.role_name)
    when 'role was replaced' then pg_catalog.format(
      'select filestore.grant_access(%L, %L)', c.role_name, l.level
    )
    when 'member of a role beyond its level' then pg_catalog.format(
      'revoke %s from %I', c.object, c.role_name
    )
    when 'superuser' then pg_catalog.format('alter role %s nosuperuser', c.object)
    when 'owner beyond its level' then pg_catalog.format(
      'alter %s %s owner to %I',
      c.kind,
      c.object,
      (
        select pg_catalog.pg_get_userbyid(t.relowner)
        from pg_catalog.pg_class t where t.oid = 'filestore.nodes'::pg_catalog.regclass
      )
    )
    when 'may grant itself roles' then pg_catalog.format('alter role %s nocreaterole', c.object)
    when 'may switch triggers off' then pg_catalog.format(
      'revoke set, alter system on parameter %s from %I', c.object, c.role_name
    )
    when 'triggers switched off' then pg_catalog.format(
      'alter %s reset session_replication_role', case c.object when 'this session' then 'system' else c.object end
    )
    when 'owned by another role' then pg_catalog.format(
      'alter %s %s owner to %I',
      case c.kind when 'function' then 'routine' else c.kind end,
      c.object,
      (
        select pg_catalog.pg_get_userbyid(n.nspowner)
        from pg_catalog.pg_namespace n where n.nspname = 'filestore'
      )
    )
    when 'not renewed by migrations' then 'select filestore.attach_renewal()'
    else pg_catalog.format(
      'revoke %s%s on %s %s from %s%s',
      pg_catalog.lower(c.privilege),
      ' ('
        || pg_catalog.string_agg(pg_catalog.quote_ident(c.column_name), ', ' order by c.column_name)
        || ')',
      case c.kind when 'column' then 'table' else c.kind end,
      c.object,
      case c.role_name when 'PUBLIC' then 'public' else pg_catalog.quote_ident(c.role_name) end,
      -- The role may have passed the right on.
      case when pg_catalog.starts_with(c.privilege, 'GRANT OPTION') then ' cascade' end
    )
  end as remedy
from filestore.check_access() c
left join filestore.access_levels l on l.role_name = c.role_name
-- The comparison with the model reports differences in the other rights of PUBLIC.
where c.role_name is distinct from 'PUBLIC' or c.problem = 'right on the bookkeeping'
group by c.problem, c.role_name, l.level, c.privilege, c.kind, c.object
order by c.role_name, c.problem, c.kind, c.object, c.privilege`);

interface Difference {
  readonly problem: string;
  readonly role: string | null;
  /** Null for a role without a level. */
  readonly level: string | null;
  readonly privilege: string | null;
  readonly kind: string;
  readonly object: string;
  readonly columns: string | null;
  /** A statement. */
  readonly remedy: string;
}

/** Compares the rights of roles with their levels. Reads only. */
export async function checkRights(session: Queryable): Promise<RightsCheck> {
  type Asked = { role: string; literal: string; exists: boolean; allowed: boolean };
  const [asked] = await lastRows<Asked>(session, ASK);
  if (!asked?.exists) {
    return unchecked('the database has no function filestore.check_access(). Apply the migrations.');
  }
  const grant = `select filestore.grant_access(${asked.literal}, 'reader')`;
  const remedy = `Let the owner of the schema run: ${grant}.`;
  if (!asked.allowed) {
    return unchecked(`role "${asked.role}" may not call filestore.check_access(). ${remedy}`);
  }
  try {
    const found = await lastRows<Difference & Record<string, unknown>>(session, DIFFERENCES);
    if (found.length === 0) return { state: 'same' };
    return { state: 'drifted', differences: found.map(describe).map(printable) };
  } catch (error) {
    if (isConnectionLoss(error) || !(error instanceof Error)) throw error;
    return unchecked(`the server refused (${error.message}). ${remedy}`);
  }
}

function unchecked(why: string): RightsCheck {
  return { state: 'unchecked', reason: printable(`Could not check rights: ${why}`) };
}

function describe({ problem, role, level, privilege, kind, object, columns, remedy }: Difference): string {
  const on =
    columns === null
      ? `${kind} ${object}`
      : `${columns.includes(',') ? 'columns' : 'column'} ${columns} of table ${object}`;
  const right = `${privilege} on ${on}`;
  switch (problem) {
    case 'not renewed by migrations':
      return paragraph(
        `${object} has no trigger that renews rights, so a migration can remove rights.`,
        `Attach it again: ${remedy}`,
      );
    case 'owned by another role':
      return paragraph(
        `${kind} ${object} belongs to role "${role}", not to the owner of the schema.`,
        `Change its owner: ${remedy}`,
      );
    case 'superuser':
      return paragraph(
        `role "${role}" is a superuser, so it may do more than its level ${level} allows.`,
        `Change it: ${remedy}`,
      );
    case 'may grant itself roles':
      return paragraph(
        `role "${role}" has CREATEROLE, so it may do more than its level ${level} allows.`,
        `Change it: ${remedy}`,
      );
    case 'owner beyond its level':
      return paragraph(
        `role "${role}" owns the ${kind} ${object}, so it may do more than its level ${level} allows.`,
        `Give it another owner: ${remedy}`,
      );
    case 'may switch triggers off':
      return `role "${role}" may set ${object}, which switches all guards off. Revoke it: ${remedy}`;
    case 'triggers switched off':
      if (object === 'this session') {
        return paragraph(
          'session_replication_role is "replica" here, by the settings of the server or the options of the connection,',
          `so no guard works in such sessions. Remove it from the options, or run: ${remedy}`,
        );
      }
      return paragraph(
        `session_replication_role is "replica" for ${object}, so no guard works in these sessions.`,
        `Change it: ${remedy}`,
      );
    case 'right on the bookkeeping':
      return `role "${role}" has ${right}, which only the role that migrates needs. Revoke it: ${remedy}`;
    case 'member of a role beyond its level':
      return paragraph(
        `role "${role}" is a member of role ${object}, by which it may do more than its level`,
        `${level} allows. Revoke it: ${remedy}`,
      );
    case 'role is gone':
      return `role "${role}" does not exist, but has level ${level}. Remove the level: ${remedy}`;
    case 'role was replaced':
      return paragraph(
        `role "${role}" is not the role that got level ${level}: that one was dropped,`,
        'or the database was restored.',
        'Remove the level with filestore.revoke_access, or grant it to the role that exists now:',
        remedy,
      );
    case 'missing':
      return `role "${role}" lacks ${right}, which level ${level} has. Grant it: ${remedy}`;
  }
  if (level !== null) return `role "${role}" has ${right}, beyond its level ${level}. Revoke it: ${remedy}`;
  return paragraph(
    `role "${role}" has ${right}, but no level.`,
    `Give it one (select filestore.grant_access('${role?.replaceAll("'", "''")}', 'reader')),`,
    `or revoke it: ${remedy}`,
  );
}
