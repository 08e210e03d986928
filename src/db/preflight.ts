import type pg from 'pg';
import type { LockHolder } from '../errors.ts';
import { type HolderRow, lockHolder, readHolder } from './lock-holder.ts';
import { GRAPHILE_LOCK_KEY, MIGRATION_LOCK_KEY } from './lock-keys.ts';
import type { AppliedMigration } from './plan.ts';
import type { Queryable } from './session.ts';

/** The state of a database before a run. */
export interface Preflight {
  /** The server's version, such as `18.4`. */
  readonly serverVersion: string;
  /** Id of the server process that answers. Behind a pooler it differs from the announced one. */
  readonly pid: number;
  /** True on a hot standby. */
  readonly standby: boolean;
  /** True if transactions cannot write, on a standby or by settings of the role or database. */
  readonly readOnly: boolean;
  readonly bookkeeping: Bookkeeping;
  /** Whether both tables of graphile-migrate exist. */
  readonly bookkeepingIsWhole: boolean;
  /** Whether any table, view or type is in the schema, migrated or not. */
  readonly hasObjects: boolean;
  /** The holders of the locks of migrations on this database. */
  readonly migrators: readonly Migrator[];
}

/**
 * A holder of a lock of migrations: usually a run of this package or of graphile-migrate, but any login can take the
 * locks.
 */
export type Migrator = LockHolder & { readonly lock: 'filestore' | 'graphile-migrate' };

/** The recorded history: the table graphile_migrate.migrations. */
export type Bookkeeping =
  | { readonly state: 'absent' }
  | { readonly state: 'unreadable' }
  | { readonly state: 'read'; readonly applied: readonly AppliedMigration[] };

/**
 * One message. It logs no error on the server, and works on a standby, in a read-only session, and for a role that
 * may only read. It looks up the table by oid, because to_regclass fails for a role without rights on the schema. It
 * reads the table in a block, because a query that names a missing table cannot be planned.
 */
const LOOK = `
do $look$
declare
  history constant oid := (
    select c.oid
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'graphile_migrate' and c.relname = 'migrations' and c.relkind = 'r'
  );
  answer text := '{"state": "absent"}';
begin
  if history is not null then
    if pg_catalog.has_schema_privilege('graphile_migrate', 'usage') and pg_catalog.has_table_privilege(history, 'select') then
      execute $rows$
        select pg_catalog.json_build_object(
          'state', 'read',
          'applied', coalesce(
            pg_catalog.json_agg(
              pg_catalog.json_build_object(
                'filename', filename, 'hash', hash, 'previousHash', previous_hash, 'appliedAt', date
              )
              order by filename collate "C"
            ),
            '[]'
          )
        )
        from graphile_migrate.migrations
      $rows$ into answer;
    else
      answer := '{"state": "unreadable"}';
    end if;
  end if;
  perform pg_catalog.set_config('filestore.preflight', answer, true);
end
$look$;
select
  pg_catalog.current_setting('filestore.preflight')::json as bookkeeping,
  pg_catalog.current_setting('server_version') as "serverVersion",
  pg_catalog.pg_backend_pid() as pid,
  pg_catalog.pg_is_in_recovery() as standby,
  pg_catalog.current_setting('transaction_read_only') = 'on' as "readOnly",
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
  (
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
  ) as migrators
`;

type Row = Omit<Preflight, 'bookkeeping' | 'migrators'> & {
  readonly migrators: readonly { readonly holder: HolderRow; readonly lock: Migrator['lock'] }[];
  readonly bookkeeping:
    | Exclude<Bookkeeping, { readonly state: 'read' }>
    | {
        readonly state: 'read';
        readonly applied: readonly (Omit<AppliedMigration, 'appliedAt'> & { readonly appliedAt: string })[];
      };
};

/** Reads the state of a database. */
export async function readPreflight(session: Queryable): Promise<Preflight> {
  // Two statements are two results, which pg's types do not know.
  const results = (await session.query(LOOK)) as unknown as readonly pg.QueryResult<Row>[];
  const row = results[1]?.rows[0];
  if (row === undefined) throw new Error('the server answered nothing');
  const { bookkeeping } = row;
  return {
    ...row,
    migrators: row.migrators.map(({ holder, lock }) => ({ ...readHolder(holder), lock })),
    serverVersion: row.serverVersion.split(' ')[0] ?? row.serverVersion,
    bookkeeping:
      bookkeeping.state === 'read'
        ? {
            state: 'read',
            applied: bookkeeping.applied.map((entry) => ({ ...entry, appliedAt: new Date(entry.appliedAt) })),
          }
        : bookkeeping,
  };
}
