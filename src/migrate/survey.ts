import type { SchemaCheck } from '../catalog/drift.ts';
import { FilestoreError, type LockHolder } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import {
  GRAPHILE_LOCK_KEY,
  type HolderRow,
  lockHolder,
  MIGRATION_LOCK_KEY,
  readHolder,
} from '../session/lock-holder.ts';
import { refusePooler } from '../session/pooler.ts';
import { lastRows, type Session, withSession } from '../session/session.ts';
import type { Database } from '../settings/database.ts';
import { underPinnedSettings } from '../settings/server-settings.ts';
import { capitalized, paragraph } from '../text.ts';
import {
  type AppliedMigration,
  type MigrationPlan,
  type MigrationState,
  planMigrations,
  problemsOf,
  refuseDiverged,
  whyNotComparable,
} from './plan.ts';

/** The state of a database before a run. */
export interface Preflight {
  /** The database in words without a secret. */
  readonly where: string;
  /** The server's version, such as `18.4`. */
  readonly serverVersion: string;
  /**
   * Id of the server process that answered. Behind a pooler, it differs from the one sent at the connection.
   */
  readonly pid: number;
  /**
   * Equal for two connections to one database, also if they name its host differently. Has the start time of
   * the server's first process, because a standby or a copied data folder has the same system identifier.
   */
  readonly identity: string;
  /** True on a hot standby. */
  readonly standby: boolean;
  /** True if transactions cannot write, on a standby or by settings of the role or database. */
  readonly readOnly: boolean;
  /** True if triggers do not fire in this role's sessions, and it may not change that. */
  readonly triggersDisabled: boolean;
  /** The table graphile_migrate.migrations; null where there is none. */
  readonly history: readonly AppliedMigration[] | 'unreadable' | null;
  /** Whether both tables of graphile-migrate exist. */
  readonly bookkeepingIsWhole: boolean;
  /** Whether any table, view or type is in the schema, migrated or not. */
  readonly hasObjects: boolean;
  /** The holders of the locks of migrations on this database. */
  readonly migrators: readonly Migrator[];
}

/**
 * A holder of a lock of migrations: usually a run of this package or of graphile-migrate, but any login can
 * take the locks.
 */
export type Migrator = LockHolder & { readonly lock: 'filestore' | 'graphile-migrate' };

/** A database, and how its history compares with the files. */
export interface Survey extends Preflight {
  readonly applied: readonly AppliedMigration[];
  readonly plan: MigrationPlan;
  /** Whether tables exist without a history. They are kept, and the migrations run over them. */
  readonly adopting: boolean;
}

/** How the history of a database compares with the migrations of this package. */
export interface MigrationStatus {
  readonly state: MigrationState;
  readonly applied: readonly AppliedMigration[];
  /** Names of the files that a run would apply. Empty if `ahead` or `diverged`, which a run refuses. */
  readonly pending: readonly string[];
  /** One line for each problem, with its remedy. Empty unless `ahead` or `diverged`. */
  readonly problems: readonly string[];
  readonly serverVersion: string;
  /** True on a hot standby, which gets its migrations by replication. */
  readonly standby: boolean;
  /** The present holders of the locks of migrations. */
  readonly migrators: readonly Migrator[];
}

/**
 * One message. It causes no error in the server's log, and works on a standby, in a read-only session, and
 * for a role that may only read. It finds the table by oid, because to_regclass fails for a role without
 * rights on the schema. It reads the table in a block, because a query that names a missing table cannot be
 * planned. It reads the holders of the locks only if there are any, because planning that query doubles the
 * time in a new session.
 */
const LOOK = underPinnedSettings(`
do $look$
declare
  history constant oid := (
    select c.oid
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'graphile_migrate' and c.relname = 'migrations' and c.relkind = 'r'
  );
  answer text := 'null';
  migrators text := '[]';
begin
  if history is not null then
    if pg_catalog.has_schema_privilege('graphile_migrate', 'usage') and pg_catalog.has_table_privilege(history, 'select') then
      execute $rows$
        select coalesce(
          pg_catalog.json_agg(
            pg_catalog.json_build_object(
              'filename', filename, 'hash', hash, 'previousHash', previous_hash, 'appliedAt', date
            )
            order by filename collate "C"
          ),
          '[]'
        )
        from graphile_migrate.migrations
      $rows$ into answer;
    else
      answer := '"unreadable"';
    end if;
  end if;
  perform pg_catalog.set_config('filestore.preflight', answer, true);
  if exists (
    select from pg_catalog.pg_locks l
    where l.locktype = 'advisory'
      and (l.classid::bigint << 32 | l.objid::bigint) in (${MIGRATION_LOCK_KEY}, ${GRAPHILE_LOCK_KEY})
  ) then
    execute $holders$
      select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
        'holder', ${lockHolder('l', 'a')},
        'lock', case k.key when ${MIGRATION_LOCK_KEY} then 'filestore' else 'graphile-migrate' end
      )), '[]')
      from pg_catalog.pg_locks l
      -- The two halves of a key, as the server stores it (PostgreSQL manual, view pg_locks).
      join (values (${MIGRATION_LOCK_KEY}::bigint), (${GRAPHILE_LOCK_KEY}::bigint)) k (key)
        on l.classid::bigint = k.key >> 32 and l.objid::bigint = k.key & 4294967295
      join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
      left join pg_catalog.pg_stat_activity a on a.pid = l.pid
      where l.locktype = 'advisory' and l.objsubid = 1 and l.granted
    $holders$ into migrators;
  end if;
  perform pg_catalog.set_config('filestore.migrators', migrators, true);
end
$look$;
select
  pg_catalog.current_setting('filestore.preflight')::json as history,
  pg_catalog.current_setting('server_version') as "serverVersion",
  pg_catalog.pg_backend_pid() as pid,
  (
    select pg_catalog.concat_ws(' ', extract(epoch from pg_catalog.pg_postmaster_start_time()), d.oid)
    from pg_catalog.pg_database d where d.datname = pg_catalog.current_database()
  ) as identity,
  pg_catalog.pg_is_in_recovery() as standby,
  pg_catalog.current_setting('transaction_read_only') = 'on' as "readOnly",
  pg_catalog.current_setting('session_replication_role') = 'replica' as "triggersDisabled",
  (
    select pg_catalog.count(*) = 2
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'graphile_migrate' and c.relname in ('migrations', 'current') and c.relkind = 'r'
  ) as "bookkeepingIsWhole",
  exists (
    select from pg_catalog.pg_namespace n
    where n.nspname = 'filestore' and (
      exists (select from pg_catalog.pg_class c where c.relnamespace = n.oid)
      or exists (select from pg_catalog.pg_type t where t.typnamespace = n.oid)
    )
  ) as "hasObjects",
  pg_catalog.current_setting('filestore.migrators')::json as migrators
`);

type Row = Omit<Preflight, 'where' | 'history' | 'migrators'> & {
  readonly migrators: readonly { readonly holder: HolderRow; readonly lock: Migrator['lock'] }[];
  readonly history:
    | readonly (Omit<AppliedMigration, 'appliedAt'> & { readonly appliedAt: string })[]
    | 'unreadable'
    | null;
};

/** Reads a database and compares it with the files. Refuses only a history that may not be read. */
export async function survey(
  session: Session,
  committed: readonly CommittedMigration[],
  pooler?: 'refuse' | 'session',
): Promise<Survey> {
  const preflight = await readPreflight(session);
  if (pooler !== undefined) await refusePooler(session, preflight.pid, pooler);
  const applied = appliedIn(preflight);
  return {
    ...preflight,
    applied,
    plan: planMigrations(committed, applied),
    adopting: preflight.hasObjects && applied.length === 0,
  };
}

/** The migrations that a database records; none without a history. */
export function appliedIn({ where, history }: Preflight): readonly AppliedMigration[] {
  if (history !== 'unreadable') return history ?? [];
  throw new FilestoreError(
    'HISTORY_UNREADABLE',
    paragraph(
      `${capitalized(where)} was migrated, but this role may not read its history. Grant the rights:`,
      'grant usage on schema graphile_migrate to …; grant select on graphile_migrate.migrations to ….',
    ),
  );
}

/** Reads the state of a database. */
export async function readPreflight(session: Session): Promise<Preflight> {
  const [row] = await lastRows<Row>(session, LOOK);
  if (row === undefined) throw new Error('the server returned no row');
  const { history } = row;
  return {
    ...row,
    where: session.database.where,
    migrators: row.migrators.map(({ holder, lock }) => ({ ...readHolder(holder), lock })),
    serverVersion: row.serverVersion.split(' ')[0] ?? row.serverVersion,
    history:
      history === null || history === 'unreadable'
        ? history
        : history.map((entry) => ({ ...entry, appliedAt: new Date(entry.appliedAt) })),
  };
}

/** Surveys a database, and uses the session for `work`. */
export async function withSurvey<T>(
  reader: {
    readonly database: Database;
    readonly committed: readonly CommittedMigration[];
    readonly signal?: AbortSignal;
    readonly onIdentity?: (identity: string) => void;
  },
  work: (found: Survey, session: Session) => Promise<T>,
): Promise<T> {
  const { database, committed, signal, onIdentity } = reader;
  const surveyAndWork = async (session: Session) => {
    const found = await survey(session, committed);
    onIdentity?.(found.identity);
    return work(found, session);
  };
  return withSession(database, surveyAndWork, signal);
}

/** The status that a survey shows. */
export function statusOf({ plan, applied, serverVersion, standby, migrators }: Survey): MigrationStatus {
  return {
    state: plan.state,
    applied,
    pending: 'pending' in plan ? plan.pending.map(({ filename }) => filename) : [],
    problems: problemsOf(plan),
    serverVersion,
    standby,
    migrators,
  };
}

/** Compares the schema of a database that was surveyed in the same session. */
export async function compareSurveyed(
  found: Survey,
  session: Session,
  committed: readonly CommittedMigration[],
): Promise<SchemaCheck> {
  refuseDiverged(found);
  const reason = whyNotComparable(found.plan);
  if (reason !== undefined) return { state: 'unchecked', reason };
  const { checkSchemaAndRights } = await import('../catalog/drift.ts');
  return checkSchemaAndRights(session, committed);
}
