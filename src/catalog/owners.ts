import { FilestoreError } from '../errors.ts';
import { lastRows, type Session } from '../session/session.ts';
import { underPinnedSettings } from '../settings/server-settings.ts';
import { capitalized, paragraph, printable } from '../text.ts';

/**
 * The schemas and tables of a run that belong to a role that this role is not a member of. Such an owner
 * can attach a trigger, which runs with the rights of this role. A superuser is a member of every role, and
 * may continue what another owner began: for a superuser, other owners count only before the first migration.
 */
const strangersQuery = (hasHistory: boolean): string =>
  underPinnedSettings(`
select o.kind, o.object, pg_catalog.pg_get_userbyid(o.owner) as owner
from (
  select 'schema' as kind, pg_catalog.format('%I', n.nspname) as object, n.nspowner as owner
  from pg_catalog.pg_namespace n
  where n.nspname in ('filestore', 'graphile_migrate')
  union all
  select 'table', pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'graphile_migrate' and c.relkind in ('r', 'p', 'v', 'm', 'f')
) o
join pg_catalog.pg_roles r on r.oid = o.owner
where not r.rolsuper
  and r.rolname <> current_user
  and r.oid <> (select d.datdba from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and case
    when (select u.rolsuper from pg_catalog.pg_roles u where u.rolname = current_user) then ${!hasHistory}
    else not pg_catalog.pg_has_role(r.oid, 'member')
  end
order by o.kind, o.object`);

/**
 * Refuses a schema or bookkeeping that another role has prepared.
 * @throws {FilestoreError} `OWNER_NOT_TRUSTED`
 */
export async function refuseStrangers(session: Session, hasHistory: boolean): Promise<void> {
  type Row = { kind: 'schema' | 'table'; object: string; owner: string };
  const [stranger] = await lastRows<Row>(session, strangersQuery(hasHistory));
  if (stranger === undefined) return;
  const { kind, object, owner } = stranger;
  throw new FilestoreError(
    'OWNER_NOT_TRUSTED',
    printable(
      paragraph(
        `${capitalized(session.database.where)} lacks migrations, and its ${kind} ${object} belongs to role`,
        `"${owner}", which could run SQL as the role that migrates. Nothing was changed.`,
        'If you do not know where it comes from, drop it.',
        `If you trust its content, change its owner: alter ${kind} ${object} owner to ….`,
      ),
    ),
  );
}
