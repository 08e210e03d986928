import { codeOf, sqlStateOf } from '../cause-codes.ts';
import { type LockHolder, MigrationFailedError } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { concurrentIndexOf, type IndexName } from '../graphile/concurrent-index-text.ts';
import { isConnectionLoss, TemporaryFailure } from '../session/connection-error.ts';
import { describeHolders, type HolderRow, lockHolder, readHolder } from '../session/lock-holder.ts';
import type { Queryable } from '../session/session.ts';
import { messageOfError, paragraph } from '../text.ts';
import type { Run } from './run-state.ts';

/** For cases without time left, or with a known blocker. */
const BRIEFLY_MS = 300;

/**
 * Drops the invalid indexes of failed builds of pending migrations.
 * @throws {TemporaryFailure} other sessions block the drop.
 */
export async function clearInvalidIndexes(
  run: Run,
  session: Queryable,
  pending: readonly CommittedMigration[],
): Promise<void> {
  for (const migration of pending) {
    const name = concurrentIndexOf(migration);
    if (name === undefined) continue;
    run.signal.throwIfAborted();
    try {
      if (!(await dropInvalidIndex(run, session, name))) continue;
      const message = `Dropped the invalid index ${name.schema}.${name.index}, left by a failed build.`;
      run.emit({ type: 'warning', message });
    } catch (error) {
      if (run.signal.aborted || isConnectionLoss(error)) throw error;
      throw cannotRun(migration, error, run.progress.applied);
    }
  }
}

/** Tries to drop the invalid index of a failed migration. If that fails, the next run drops it. */
export async function clearAfterFailure(
  run: Run,
  session: Queryable,
  migration: CommittedMigration,
  gaveUp: boolean,
): Promise<void> {
  const name = concurrentIndexOf(migration);
  if (name === undefined) return;
  const patienceMs = gaveUp || run.signal.aborted ? BRIEFLY_MS : undefined;
  await dropInvalidIndex(run, session, name, patienceMs).catch(() => undefined);
}

function cannotRun({ filename }: CommittedMigration, cause: unknown, applied: readonly string[]): Error {
  const isBusy = cause instanceof IndexBusyError;
  const why = messageOfError(cause);
  const reason = isBusy
    ? `${filename} cannot run yet: ${why}.`
    : `${filename} cannot run, because the invalid index of an earlier attempt cannot be dropped: ${why}.`;
  const remedy = isBusy ? 'Run this again when they have ended.' : 'Fix the cause, and run this again.';
  const place = { filename, statement: null, line: null, column: null };
  const message = `Migration ${reason} ${remedy}`;
  const error = new MigrationFailedError(message, place, sqlStateOf(cause), applied, { cause });
  return isBusy ? new TemporaryFailure(reason, error) : error;
}

/**
 * Drops the invalid index of a failed or killed concurrent build, which "create index concurrently if not
 * exists" would skip silently. It drops only an invalid index of exactly that schema and name, and never
 * during a build. If the run is stopped while it waits, its session ends, and the server ends the drop.
 * @param patienceMs How long to wait for sessions that use the table. Default: the migrations' lock timeout.
 * @returns whether there was one.
 * @throws {IndexBusyError} a session builds an index on the table, or used the table for longer than that.
 */
async function dropInvalidIndex(
  { settings }: Run,
  session: Queryable,
  { schema, index }: IndexName,
  patienceMs = settings.lockTimeoutMs || settings.lockWaitMs,
): Promise<boolean> {
  const look = `select pg_catalog.format('%I.%I', n.nspname, c.relname) as name, i.indrelid as table
     from pg_catalog.pg_index i
     join pg_catalog.pg_class c on c.oid = i.indexrelid
     join pg_catalog.pg_namespace n on n.oid = c.relnamespace
     where n.nspname = ${literal(schema)} and c.relname = ${literal(index)} and not i.indisvalid`;
  const [found] = (await session.query<{ name: string; table: number }>(look)).rows;
  if (found === undefined) return false;
  // An autovacuum has no role. It builds no index, and the server cancels it for a waiting drop.
  const isBuilding = "l.mode = 'ShareUpdateExclusiveLock' and a.usesysid is not null";
  const builders = describeHolders(await usersOf(session, found.table, isBuilding));
  if (builders !== '') {
    throw new IndexBusyError(`index ${found.name} is incomplete, and its table is in use by ${builders}`);
  }
  // A build that ended before its session was looked for has completed the index.
  if ((await session.query(look)).rowCount === 0) return false;
  const waitMs = Math.max(1, Math.round(patienceMs));
  await session.query(`set lock_timeout = ${waitMs}; set statement_timeout = 0`);
  try {
    // A concurrent drop waits for other sessions without blocking them.
    await session.query(`drop index concurrently if exists ${found.name}`);
  } catch (error) {
    if (codeOf(error) !== '55P03') throw error;
    const users = describeHolders(await usersOf(session, found.table, 'true')) || 'others';
    const message = paragraph(
      `the invalid index ${found.name} of a failed build cannot be dropped`,
      `while its table is in use by ${users}`,
    );
    throw new IndexBusyError(message, { cause: error });
  }
  await session.query('set lock_timeout = 0');
  return true;
}

/** An invalid index exists, but other sessions block its drop. This is temporary. */
class IndexBusyError extends Error {}

/** The holders of locks on a table. A copy of this database has a table with the same oid. */
async function usersOf(session: Queryable, table: number, condition: string): Promise<readonly LockHolder[]> {
  const { rows } = await session.query<{ readonly holder: HolderRow }>(
    // One row for each holder, however many locks it has.
    `select distinct on (l.pid, l.virtualtransaction) ${lockHolder('l', 'a')} as holder
     from pg_catalog.pg_locks l
     join pg_catalog.pg_database d on d.oid = l.database and d.datname = pg_catalog.current_database()
     left join pg_catalog.pg_stat_activity a on a.pid = l.pid
     where l.relation = ${table} and l.granted and l.pid is distinct from pg_catalog.pg_backend_pid()
       and ${condition}`,
  );
  return rows.map(({ holder }) => readHolder(holder));
}

function literal(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
