import type { ConnectionSettings } from '../settings/settings.ts';
import { messageOfError, printable } from '../text.ts';
import { passwordOf } from './conninfo.ts';
import { STEP_LINES } from './move-mount.ts';
import { type Decision, nextAction } from './next-action.ts';
import { requirePlace } from './place.ts';
import { openSide, type Side } from './side.ts';

/** One condition of a move. */
export interface ReadinessCheck {
  readonly server: 'source' | 'target';
  readonly ok: boolean;
  /** What is needed. */
  readonly need: string;
  /** What there is instead, and what to do; only if it is not ok. */
  readonly remedy?: string;
}

export interface ReadinessReport {
  readonly checks: readonly ReadinessCheck[];
  /** What the run would do first. */
  readonly next: string;
  /** About how long no server will take writes, in milliseconds; null until the target has counted. */
  readonly expectedPauseMs: number | null;
}

type Row = { readonly ok: boolean; readonly need: string; readonly remedy: string };

/**
 * True for a member of one of these roles, by which managed servers give what PostgreSQL gives by an
 * attribute. docs/managed.md has the sources.
 */
const isMemberOf = (...roles: readonly string[]) => `exists (
    select from pg_roles g
    where g.rolname in (${roles.map((role) => `'${role}'`).join(', ')}) and pg_has_role(g.oid, 'usage')
  )`;

/** That three of what a setting limits are free. @param used The view of those in use. */
const threeFree = (setting: string, what: string, used: string) =>
  `select current_setting('${setting}')::integer - count(*) >= 3, 'three ${what} are free',
    'raise ${setting}, and restart the server' from ${used}`;

const MAY_REPLICATE = `r.rolreplication or r.rolsuper or ${isMemberOf('rds_replication')}`;

const OWNER = `select pg_has_role(c.relowner, 'usage') as ok, 'the role owns the schema' as need,
    'connect as ' || pg_get_userbyid(c.relowner) as remedy
  from pg_class c where c.oid = 'filestore.nodes'::regclass`;

const MAY_CREATE = `select has_database_privilege(current_database(), 'create'),
    'the role may create in the database',
    format('grant create on database %I to %I', current_database(), current_user)`;

const ON_SOURCE = `${OWNER}
  union all ${MAY_CREATE}
  union all select current_setting('wal_level') = 'logical', 'wal_level is logical',
    'it is ' || current_setting('wal_level') || ': set it to logical, and restart the server'
  union all ${threeFree('max_replication_slots', 'replication slots', 'pg_replication_slots')}
  union all ${threeFree('max_wal_senders', 'walsenders', 'pg_stat_replication')}
  union all select not exists (select from filestore.backfills b where b.finished_at is null),
    'no backfill is unfinished', 'call filestore.backfill again until it ends'
  union all select not exists (
      select from pg_stat_replication r
      where r.flush_lsn is null and not exists (
        select from pg_replication_slots s where s.active_pid = r.pid and s.slot_type = 'logical'
      )
    ), 'the role sees how far standbys are', format('grant pg_monitor to %I', current_user)
  union all select ${MAY_REPLICATE}, 'the role may create the slot of the move',
    format('alter role %I replication', current_user) from pg_roles r where r.rolname = current_user`;

/**
 * Without its password being asked for, a subscription of a role that is no superuser fails. pg_hba.conf decides that by
 * address, so this process cannot know it for the target.
 */
const UNASKED = ', if the source asks it for one: it did not ask this command (trust in pg_hba.conf)';

const onTarget = (hasPassword: boolean, isAsked: boolean) => `${OWNER}
  union all ${MAY_CREATE}
  union all select r.rolsuper or case when current_setting('server_version_num')::integer >= 160000
      then ${isMemberOf('pg_create_subscription')}
      else ${isMemberOf('rds_superuser', 'cloudsqlsuperuser', 'neon_superuser')} end,
    'the role may create subscriptions',
    case when current_setting('server_version_num')::integer >= 160000
      then format('grant pg_create_subscription to %I', current_user)
      else 'before PostgreSQL 16, only a superuser or the administrator of a managed server may: '
        || 'connect as one' end
  from pg_roles r where r.rolname = current_user
  union all select r.rolsuper or ${hasPassword},
    'the target reads the source with a password' || case when r.rolsuper then '' else '${isAsked ? '' : UNASKED}' end,
    'only a superuser may create a subscription without one: add it to the URL of --from'
  from pg_roles r where r.rolname = current_user
  union all select current_setting('max_logical_replication_workers')::integer >= 3,
    'three workers for subscriptions', 'raise max_logical_replication_workers, and restart the server'`;

const AS_READER = `select ${MAY_REPLICATE} as ok,
    'the target''s role on the source may replicate' as need,
    format('alter role %I replication', current_user) as remedy from pg_roles r where r.rolname = current_user
  union all select bool_and(has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')),
    'that role may read the tables', format('select filestore.grant_access(%L, ''reader'')', current_user)
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = 'filestore'
    and c.relname in ('backend_mounts', 'nodes', 'snapshots', 'journal_entries', 'moves')`;

/** Asks both servers whether a mount could move. Changes nothing. */
export async function checkReadiness(
  mountKey: string,
  source: Side,
  target: Side,
  reader: ConnectionSettings,
): Promise<ReadinessReport> {
  const states = { source: await source.state(mountKey), target: await target.state(mountKey) };
  const { askedPassword, checks: ofReader } = await askAsReader(reader);
  const checks = [
    ...(await ask(source, 'source', ON_SOURCE)),
    ...ofReader,
    ...(await ask(target, 'target', onTarget(passwordOf(reader) !== undefined, askedPassword))),
    check(
      'target',
      states.source.number !== states.target.number,
      'the target has another number',
      'call filestore.set_database_number there, while it is empty',
    ),
    check(
      'target',
      (await schemaOf(source)) === (await schemaOf(target)),
      'both servers have the same tables',
      'apply the migrations of the same version to both',
    ),
  ];
  const decision = nextAction(states.source, states.target);
  const problem = 'problem' in decision ? decision.problem : undefined;
  checks.push(check('source', problem === undefined, 'the mount can move', problem ?? ''));
  if (!('problem' in decision) && decision.isNew && checks.every(({ ok }) => ok)) {
    const reason = await requirePlace({ mountKey, source, target }).then(() => undefined, messageOfError);
    checks.push(check('target', reason === undefined, 'the mount has a place there', reason ?? ''));
  }
  return {
    checks,
    next: describeNext(decision),
    expectedPauseMs: states.target.move?.expectedPauseMs ?? null,
  };
}

function describeNext(decision: Decision): string {
  if ('problem' in decision) return 'nothing, until what is missing is corrected';
  return decision.action === 'none' ? 'nothing: the mount is on the target' : STEP_LINES[decision.action];
}

function check(server: ReadinessCheck['server'], ok: boolean, need: string, remedy: string): ReadinessCheck {
  return ok ? { server, ok, need } : { server, ok, need, remedy: printable(remedy) };
}

async function ask(side: Side, server: ReadinessCheck['server'], statement: string) {
  return (await side.rows<Row>(statement)).map(({ ok, need, remedy }) => check(server, ok, need, remedy));
}

async function askAsReader(reader: ConnectionSettings) {
  const side = await openSide(reader);
  try {
    return { askedPassword: side.askedPassword, checks: await ask(side, 'source', AS_READER) };
  } finally {
    await side.close();
  }
}

const schemaOf = (side: Side) => side.ask<string>('select filestore.mount_schema()');
