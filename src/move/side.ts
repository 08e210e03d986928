import pg from 'pg';
import { sqlStateOf } from '../cause-codes.ts';
import { ConnectionLostError } from '../errors.ts';
import { describeLoss, isConnectionLoss } from '../session/connection-error.ts';
import { openSession, type Session } from '../session/session.ts';
import { type Database, databaseOf } from '../settings/database.ts';
import { RUN_SETTINGS } from '../settings/server-settings.ts';
import { sendUntilLifted, settingStatement } from '../settings/setting-statement.mjs';
import type { ConnectionSettings } from '../settings/settings.ts';

/** What a function of one server returns for one of the other. */
export type Receipt = Readonly<Record<string, unknown>>;

/** The steps of a move, as `filestore.move_steps()` lists them. */
export type MoveStep =
  | 'copying'
  | 'marking'
  | 'proved'
  | 'closed'
  | 'released'
  | 'canceling'
  | 'finished'
  | 'canceled'
  | 'accepted'
  | 'received'
  | 'erasing';

/** The row that a server writes for a move. */
export interface MoveRow {
  readonly id: string;
  readonly step: MoveStep;
  readonly source: number;
  readonly target: number;
  readonly attempt: number;
  /** Name of this server's subscription to it. */
  readonly subscription: string | null;
  /** Whether it lists the tables of the publication. */
  readonly isSubscribed: boolean;
  /** What the server waits for or complains about. */
  readonly problem: string | null;
  /** Changes while the copy advances. */
  readonly progress: string;
  /** Errors that the workers of its subscription counted. */
  readonly errors: number;
  /** On the target: how many of the published tables are copied. */
  readonly tablesCopied: number | null;
  /** On the target: beginnings of the names of the slots on the source that tables need to end their copy. */
  readonly tableSlots: readonly string[];
  /** On the source: bytes of log that the target has not confirmed; null when it does not read. */
  readonly bytesBehind: number | null;
  /** On the source: position in the log that the target has confirmed. */
  readonly confirmed: string | null;
  readonly expectedPauseMs: number | null;
}

/** What a server says about a mount. */
export interface SideState {
  readonly number: number;
  /** Whether `prepare_moves(true)` has ended. */
  readonly isPrepared: boolean;
  /** Null without a mount of that key. */
  readonly mountId: string | null;
  readonly heldBy: number | null;
  /** Its last move, or the one that is not finished. */
  readonly move: MoveRow | undefined;
}

/** One server of a move, and a connection to it. */
export interface Side {
  readonly where: string;
  /** Whether the server asked this process for a password. */
  readonly askedPassword: boolean;
  /** Runs a statement and returns its first value. */
  ask<T>(statement: string): Promise<T>;
  rows<Row extends pg.QueryResultRow>(statement: string): Promise<readonly Row[]>;
  state(mountKey: string): Promise<SideState>;
  /** Cancels the statement that runs, if one does. */
  cancel(): Promise<void>;
  close(): Promise<void>;
}

/** What the actions of a move work on. */
export interface MoveScene {
  readonly mountKey: string;
  readonly source: Side;
  readonly target: Side;
  /** libpq's connection string by which the target's server reaches the source. It contains a password. */
  readonly conninfo: string;
  /** How long the cut-over may take. */
  readonly withinMs: number;
}

/** An interval in milliseconds, or null. */
const MS = (interval: string) => `(extract(epoch from ${interval}) * 1000)::integer`;

/**
 * @throws {FilestoreError} `CONNECTION_FAILED` when the server cannot be reached or refuses, `CONNECTION_LOST` when the
 * connection is lost at once.
 */
export async function openSide(connection: ConnectionSettings): Promise<Side> {
  const database: Database = databaseOf(connection);
  const session: Session = await openSession(database, { waitMs: 0 });
  const rows = async <Row extends pg.QueryResultRow>(statement: string) => {
    try {
      return (await session.query<Row>(statement)).rows;
    } catch (error) {
      if (!isConnectionLoss(error) || isOfReplication(error)) throw error;
      const loss = describeLoss(database.where, error);
      throw new ConnectionLostError(`${loss} Run this again when the server is back: it goes on.`, [], {
        cause: error,
      });
    }
  };
  try {
    await sendUntilLifted(() => rows(settingStatement(RUN_SETTINGS, { isLocal: false })));
    // A proxy announces another process id than that of the server.
    const [own] = await rows<{ pid: number }>('select pg_catalog.pg_backend_pid() as pid');
    return sideOf(session, rows, own?.pid);
  } catch (error) {
    await session.close();
    throw error;
  }
}

function sideOf(session: Session, rows: Side['rows'], pid: number | undefined): Side {
  return {
    where: session.database.where,
    askedPassword: session.askedPassword,
    rows,
    async ask<T>(statement: string) {
      const [row] = await rows(statement);
      return Object.values(row ?? {})[0] as T;
    },
    async state(mountKey) {
      const [row] = await rows<{ state: SideState }>(stateOf(mountKey));
      if (row === undefined) throw new Error('the query of a move returned no row');
      return { ...row.state, move: row.state.move ?? undefined };
    },
    async cancel() {
      const other = await session.openAnother();
      await other.query(`select pg_catalog.pg_cancel_backend(${pid})`);
      await other.close();
    },
    close: () => session.close(),
  };
}

/** Class 08 on a connection that works: the problem is the target's own connection to the source. */
function isOfReplication(error: unknown): boolean {
  return error instanceof pg.DatabaseError && sqlStateOf(error)?.startsWith('08') === true;
}

/** @param s Alias of a row of pg_replication_slots. */
export const isSlotOf = (s: string, moveId: string) =>
  `${s}.slot_name = filestore.move_slot(${moveId}) and ${s}.database = current_database()`;

function stateOf(mountKey: string): string {
  const key = pg.escapeLiteral(mountKey);
  return `select json_build_object(
    'number', filestore.database_number(),
    'isPrepared', filestore.guard_statements(true) = '{}',
    'mountId', b.id::text,
    'heldBy', b.held_by,
    'move', case when m.id is not null then json_build_object(
      'id', m.id::text,
      'step', m.step,
      'source', m.source_number,
      'target', m.target_number,
      'attempt', m.attempt,
      'subscription', filestore.move_subscription(m.id),
      'isSubscribed', exists (
        select from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
        where s.subname = filestore.move_subscription(m.id)
      ),
      'problem', p.problem,
      'progress', concat_ws(' ', m.step, m.mark, p.tables_copied, p.copied_rows, cardinality(m.writers), (
        select sum(pg_relation_size(c.oid)) from pg_class c
        where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r'
      )),
      'errors', filestore.subscription_errors(filestore.move_subscription(m.id)),
      'tablesCopied', p.tables_copied,
      'tableSlots', array(
        select format('pg_%s_sync_%s_', r.srsubid, r.srrelid)
        from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
        where s.subname = filestore.move_subscription(m.id) and r.srsubstate = 'f'
      ),
      'bytesBehind', p.bytes_behind,
      'confirmed', (
        select s.confirmed_flush_lsn::text from pg_replication_slots s where ${isSlotOf('s', 'm.id')}
      ),
      'expectedPauseMs', ${MS('p.expected_pause')}
    ) end
  ) as state
  from (select 1) one
  left join filestore.backend_mounts b on b.mount_key = ${key}
  left join lateral (
    select * from filestore.moves m
    where m.mount_key = ${key} and m.written_by = filestore.database_number()
    order by (m.finished_at is null) desc, m.started_at desc
    limit 1
  ) m on true
  left join lateral filestore.move_progress(m) p on true`;
}

/** A call of a function of the schema, with a mount's key and receipts as arguments. */
export function callOf(name: string, ...args: readonly (string | Receipt)[]): string {
  const values = args.map((arg) => pg.escapeLiteral(typeof arg === 'string' ? arg : JSON.stringify(arg)));
  return `select filestore.${name}(${values.join(', ')})`;
}
