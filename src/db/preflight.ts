import type pg from 'pg';
import type { LockHolder } from '../errors.ts';
import { type HolderRow, lockHolder, readHolder } from './lock-holder.ts';
import { GRAPHILE_LOCK_KEY, MIGRATION_LOCK_KEY } from './lock-keys.ts';
import type { AppliedMigration } from './plan.ts';
import type { Session } from './session.ts';

/** What a database says before anything is done to it. */
export interface Preflight {
  /** The database in words that hold no secret. */
  readonly where: string;
  /** As the server names it, such as `18.4`. */
  readonly serverVersion: string;
  /** Process that answers, which is another than the one connected to where a pooler stands in between. */
  readonly pid: number;
  /** True on a hot standby. */
  readonly standby: boolean;
  /** True where transactions cannot write: on a standby, or by the role's or database's settings. */
  readonly readOnly: boolean;
  readonly bookkeeping: Bookkeeping;
  /** Whether both tables of graphile-migrate are there. */
  readonly bookkeepingIsWhole: boolean;
  /** Whether any table, view or type stands in the schema, migrated or not. */
  readonly hasObjects: boolean;
  /** Who holds a lock of migrations on this database. */
  readonly migrators: readonly Migrator[];
}

/**
 * Who holds a lock of migrations: usually a run of this package or graphile-migrate itself, but any login can take the
 * locks.
 */
export type Migrator = LockHolder & { readonly lock: 'filestore' | 'graphile-migrate' };

/** What the database remembers of its migrations: the table graphile_migrate.migrations. */
export type Bookkeeping =
  | { readonly state: 'absent' }
  | { readonly state: 'unreadable' }
  | { readonly state: 'read'; readonly applied: readonly AppliedMigration[] };

/**
 * All of it in one message, which leaves no error in the server's log, and works on a standby, in a read-only
 * session, and for a role that may only read. The table is looked up by oid, since to_regclass raises an error
 * for who may not use the schema, and it is read from within a block, since a query that names it would not
 * even be planned where it is absent.
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

type Row = Omit<Preflight, 'where' | 'bookkeeping' | 'migrators'> & {
  readonly migrators: readonly { readonly holder: HolderRow; readonly lock: Migrator['lock'] }[];
  readonly bookkeeping:
    | Exclude<Bookkeeping, { readonly state: 'read' }>
    | {
        readonly state: 'read';
        readonly applied: readonly (Omit<AppliedMigration, 'appliedAt'> & { readonly appliedAt: string })[];
      };
};

/** Asks a database how it stands. Reads only. */
export async function readPreflight(session: Session): Promise<Preflight> {
  // Two statements are two results, which pg's types do not know.
  const results = (await session.query(LOOK)) as unknown as readonly pg.QueryResult<Row>[];
  const row = results[1]?.rows[0];
  if (row === undefined) throw new Error('the server answered nothing');
  const { bookkeeping } = row;
  return {
    ...row,
    where: session.where,
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
