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
import { type DatabaseOptions, resolveDatabase } from '../settings/database.ts';
import { underPinnedSettings } from '../settings/server-settings.ts';
import { capitalized, paragraph, printable } from '../text.ts';
import {
  type AppliedMigration,
  type MigrationPlan,
  type MigrationState,
  planMigrations,
  problemsOf,
} from './plan.ts';
import { type Run, readPackagedMigrations } from './run-state.ts';

/** A database before a run, and how its history compares with the files. */
export interface Survey {
  /** The database in words without a secret. */
  readonly where: string;
  /** The server's version, such as `18.4`. */
  readonly serverVersion: string;
  /** The server process that answered. Behind a pooler, it differs from the one sent at the connection. */
  readonly pid: number;
  /**
   * Equal for two connections to one database, also if they name its host differently. Has the start time of
   * the server's first process, because a standby or a copied data folder has the same system identifier.
   */
  readonly identity: string;
  /** True on a hot standby, which gets its migrations by replication. */
  readonly standby: boolean;
  /** True if transactions cannot write, on a standby or by settings of the role or database. */
  readonly readOnly: boolean;
  /** True if triggers do not fire in this role's sessions, and it may not change that. */
  readonly triggersDisabled: boolean;
  /** Whether both tables of graphile-migrate exist. */
  readonly bookkeepingIsWhole: boolean;
  /** Whether tables exist without a history. They are kept, and the migrations run over them. */
  readonly adopting: boolean;
  /** The present holders of the locks of migrations on this database. */
  readonly migrators: readonly Migrator[];
  readonly applied: readonly AppliedMigration[];
  readonly plan: MigrationPlan;
}

/** Usually a run of this package or of graphile-migrate, but any login can take the locks of migrations. */
export type Migrator = LockHolder & { readonly lock: 'filestore' | 'graphile-migrate' };

/** How the history of a database compares with the migrations of this package. */
export interface MigrationStatus extends Pick<Survey, 'applied' | 'serverVersion' | 'standby' | 'migrators'> {
  readonly state: MigrationState;
  /** Names of the files that a run would apply. Empty if `ahead` or `diverged`, which a run refuses. */
  readonly pending: readonly string[];
  /** One line for each problem, with its remedy. Empty unless `ahead` or `diverged`. */
  readonly problems: readonly string[];
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
    if pg_catalog.has_schema_privilege('graphile_migrate', 'usage')
      and pg_catalog.has_table_privilege(history, 'select')
    then
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
      answer := pg_catalog.json_build_object('grant', (
        select pg_catalog.format('select filestore.grant_access(%L, %L)', current_user, 'service')
        from pg_catalog.pg_proc p
        join pg_catalog.pg_namespace n on n.oid = p.pronamespace
        where n.nspname = 'filestore' and p.proname = 'grant_access'
        limit 1
      ));
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

interface Row extends Omit<Survey, 'where' | 'adopting' | 'migrators' | 'applied' | 'plan'> {
  readonly migrators: readonly { readonly holder: HolderRow; readonly lock: Migrator['lock'] }[];
  /**
   * The table graphile_migrate.migrations; null where there is none. If this role may not read it, the statement
   * that gives the role a level, or null where the schema has no levels yet.
   */
  readonly history:
    | readonly (Omit<AppliedMigration, 'appliedAt'> & { readonly appliedAt: string })[]
    | { readonly grant: string | null }
    | null;
  /** Whether any table, view or type is in the schema, migrated or not. */
  readonly hasObjects: boolean;
}

/**
 * Reads a database and compares it with the files.
 * @throws {FilestoreError} `HISTORY_UNREADABLE`, and `POOLER_IN_BETWEEN` if `pooler` is given.
 */
export async function survey(
  session: Session,
  committed: readonly CommittedMigration[],
  pooler?: 'refuse' | 'session',
): Promise<Survey> {
  const [row] = await lastRows<Row>(session, LOOK);
  if (row === undefined) throw new Error('the server returned no row');
  const { where } = session.database;
  const { history, hasObjects, migrators, serverVersion, ...rest } = row;
  if (pooler !== undefined) await refusePooler(session, row.pid, pooler);
  if (history !== null && 'grant' in history) throw unreadable(where, history.grant);
  const applied = (history ?? []).map(({ filename, hash, previousHash, appliedAt }) => ({
    filename: printable(filename),
    hash: printable(hash),
    previousHash: previousHash === null ? null : printable(previousHash),
    appliedAt: new Date(appliedAt),
  }));
  return {
    ...rest,
    where,
    serverVersion: serverVersion.split(' ')[0] ?? serverVersion,
    migrators: migrators.map(({ holder, lock }) => ({ ...readHolder(holder), lock })),
    applied,
    plan: planMigrations(committed, applied),
    adopting: hasObjects && applied.length === 0,
  };
}

function unreadable(where: string, grant: string | null): FilestoreError {
  const message = paragraph(
    `${capitalized(where)} was migrated, but this role may not read its history.`,
    grant !== null && `For a service, the owner of the schema runs: ${printable(grant)}.`,
    `${grant === null ? 'Grant the rights' : 'To read the history only'}:`,
    'grant usage on schema graphile_migrate to …; grant select on graphile_migrate.migrations to ….',
  );
  return new FilestoreError('HISTORY_UNREADABLE', message);
}

/**
 * Refuses to write to a read-only database, or without triggers, which maintain history, totals and the
 * rights of roles.
 * @throws {FilestoreError} `DATABASE_READ_ONLY` or `TRIGGERS_DISABLED`.
 */
export function refuseUnwritable({ where, standby, readOnly, triggersDisabled }: Survey): void {
  if (standby) {
    const message = paragraph(
      `${capitalized(where)} is a read-only hot standby and lacks migrations.`,
      'Migrate its primary (FILESTORE_MIGRATION_DATABASE_URL); replication then copies them here.',
    );
    throw new FilestoreError('DATABASE_READ_ONLY', message);
  }
  if (readOnly) {
    const message = paragraph(
      `Sessions of this role in ${where} are read-only, and it lacks migrations.`,
      'Set default_transaction_read_only to off for the role that migrates.',
    );
    throw new FilestoreError('DATABASE_READ_ONLY', message);
  }
  if (!triggersDisabled) return;
  const message = paragraph(
    `Triggers do not fire in sessions of this role in ${where} (session_replication_role is "replica"),`,
    'and it lacks migrations. Nothing was changed. Let a superuser reset it:',
    'alter database … reset session_replication_role, or alter role … reset session_replication_role.',
  );
  throw new FilestoreError('TRIGGERS_DISABLED', message);
}

/** Uses the survey of a database, and its session. */
export type SurveyWork<T> = (
  found: Survey,
  session: Session,
  committed: readonly CommittedMigration[],
) => T | Promise<T>;

/**
 * Surveys a database for `work`.
 * @param resolved What the caller has resolved already.
 */
export async function withSurvey<T>(
  options: DatabaseOptions,
  work: SurveyWork<T>,
  resolved: Partial<Pick<Run, 'database' | 'committed' | 'onIdentity' | 'signal'>> = {},
): Promise<T> {
  const committed = resolved.committed ?? (await readPackagedMigrations());
  const database = resolved.database ?? resolveDatabase(options);
  const surveyAndWork = async (session: Session) => {
    const found = await survey(session, committed);
    resolved.onIdentity?.(found.identity);
    return work(found, session, committed);
  };
  return withSession(database, surveyAndWork, resolved.signal);
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
