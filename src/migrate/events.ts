import type { FilestoreErrorCode, LockHolder } from '../errors.ts';
import { describeHolderAndSince, describeHolders } from '../session/lock-holder.ts';
import { capitalized, count, paragraph, printable, seconds } from '../text.ts';

/** Progress of an index build, from pg_stat_progress_create_index. */
export interface IndexBuild {
  /** The server's name for it, such as `building index: scanning table`. */
  readonly phase: string;
  readonly done: number;
  /** 0 while the server does not know. */
  readonly total: number;
}

/**
 * A step of a run has ended, successfully or not. The event has the data of a span of a trace. The span `run`
 * is the whole run: it is the last event, and the parent of the others.
 */
export interface MigrationSpan {
  readonly type: 'span';
  /**
   * `connect` includes the wait for the server, `survey` reads the history, `lock` waits for other migrators,
   * `checks` evaluates the checks of the migrations, `migration` applies one file, `verify` compares the
   * schema with its model.
   */
  readonly name: 'run' | 'connect' | 'survey' | 'lock' | 'checks' | 'migration' | 'verify';
  /** The file of a `migration`; null for the others. */
  readonly filename: string | null;
  /** Milliseconds since 1970, with a fraction. */
  readonly startedAtMs: number;
  readonly durationMs: number;
  /** The attempt that it belongs to, from 1; for `run` the number of attempts. */
  readonly attempt: number;
  /** Name of the database. */
  readonly database: string;
  /** Null before the server has answered. */
  readonly serverVersion: string | null;
  /** Null after success. */
  readonly error: MigrationSpanError | null;
}

export interface MigrationSpanError {
  /** `UNEXPECTED` is a bug of this package. */
  readonly code: FilestoreErrorCode | 'UNEXPECTED';
  /** The server's SQLSTATE; null where the server reported no error. */
  readonly sqlState: string | null;
}

/** Events of a run. Durations are in milliseconds. */
export type MigrationEvent =
  /** The plan of the run. Sent once, before anything is changed. */
  | {
      readonly type: 'plan';
      /** In words, such as `database "app" on db.example:5432`. */
      readonly database: string;
      readonly serverVersion: string;
      /** Names of the files that will be run. */
      readonly pending: readonly string[];
      /** True where objects exist without a history: they are kept, and the migrations run over them. */
      readonly adopting: boolean;
    }
  /** The server does not answer yet, or another migrator is running. */
  | { readonly type: 'waiting'; readonly for: 'server'; readonly reason: string; readonly atMostMs: number }
  | { readonly type: 'waiting'; readonly for: 'lock'; readonly holder: LockHolder; readonly atMostMs: number }
  | { readonly type: 'migration-start'; readonly filename: string }
  /** Sent about once a second while a migration is blocked or builds an index. */
  | {
      readonly type: 'progress';
      readonly filename: string;
      readonly runningMs: number;
      /** The holders of the lock that it waits for. */
      readonly blockedBy: readonly LockHolder[];
      readonly indexBuild: IndexBuild | null;
    }
  | { readonly type: 'migration-end'; readonly filename: string; readonly durationMs: number }
  /** A temporary failure; the run tries again. */
  | {
      readonly type: 'retry';
      readonly attempt: number;
      readonly reason: string;
      readonly delayMs: number;
      /**
       * How long the migration waited in vain for a table's lock; other sessions may have waited behind it.
       * Null for any other failure.
       */
      readonly lockWaitedMs: number | null;
    }
  /** A warning that does not stop the run. */
  | { readonly type: 'warning'; readonly message: string }
  | MigrationSpan;

/** An event as a line for people. */
export function describeEvent(event: MigrationEvent): string {
  return printable(describe(event));
}

function describe(event: MigrationEvent): string {
  switch (event.type) {
    case 'plan': {
      const over = event.adopting ? ', over existing tables without a history' : '';
      const what = `${count(event.pending.length, 'migration')} to apply${over}`;
      return `${capitalized(event.database)} (PostgreSQL ${event.serverVersion}): ${what}`;
    }
    case 'waiting':
      return event.for === 'server'
        ? `Waiting up to ${seconds(event.atMostMs)}: ${event.reason}`
        : paragraph(
            `Waiting up to ${seconds(event.atMostMs)} for another migrator:`,
            `${describeHolderAndSince(event.holder)}. ${event.holder.remedy}`,
          );
    case 'migration-start':
      return `Applying ${event.filename}`;
    case 'progress':
      return `${event.filename}: running for ${seconds(event.runningMs)}${describeProgress(event)}`;
    case 'migration-end':
      return `OK  ${event.filename}  (${Math.round(event.durationMs)} ms)`;
    case 'retry': {
      const { reason, lockWaitedMs, delayMs, attempt } = event;
      return paragraph(
        reason,
        lockWaitedMs !== null && `Other sessions may have waited ${seconds(lockWaitedMs)} behind it.`,
        `Trying again in ${seconds(delayMs)} (attempt ${attempt}).`,
      );
    }
    case 'warning':
      return `Warning: ${event.message}`;
    case 'span': {
      const { filename, name, error, durationMs } = event;
      const how = error === null ? 'took' : `failed (${error.code}) after`;
      return `${filename ?? name} ${how} ${Math.round(durationMs)} ms`;
    }
  }
}

function describeProgress({
  blockedBy,
  indexBuild,
}: Extract<MigrationEvent, { readonly type: 'progress' }>): string {
  // The wait comes first in the line, because a terminal cuts long lines.
  const wait = blockedBy.length === 0 ? '' : `, waits for ${describeHolders(blockedBy)}`;
  if (indexBuild === null) return wait;
  const { phase, done, total } = indexBuild;
  return `${wait}, ${phase}${total > 0 ? ` ${Math.floor((100 * done) / total)} %` : ''}`;
}
