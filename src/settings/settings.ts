import { hostname } from 'node:os';
import { SettingsError } from '../errors.ts';
import { isQuotable, paragraph } from '../text.ts';
import { type DatabaseUrl, parseDatabaseUrl } from './database-url.ts';

/** Environment variables by name; `process.env` has this shape. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * How to connect to a database, for a service's pool or for migrations. pg reads missing members from the
 * PG* variables and ~/.pgpass, as libpq does.
 */
export interface ConnectionSettings extends DatabaseUrl {
  /** Name of the session in pg_stat_activity. */
  readonly applicationName: string;
  /** Milliseconds to wait for a connection, as in {@link PoolSettings}. */
  readonly connectTimeoutMs: number;
  /** Name of the environment variable or option that contains the URL, if there is one. */
  readonly variable?: string;
}

/** Size and timeouts of a pool. */
export interface PoolSettings {
  /** Maximum number of connections. FILESTORE_PGPOOL_MAX, else PGPOOL_MAX, else 5. */
  readonly max: number;
  /**
   * Milliseconds after which an unused connection is closed. FILESTORE_PGPOOL_IDLE_TIMEOUT_MS, else
   * PGPOOL_IDLE_TIMEOUT_MS, else 30 000.
   */
  readonly idleTimeoutMs: number;
  /**
   * Milliseconds to wait for a connection. FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS, else
   * PGPOOL_CONNECTION_TIMEOUT_MS, else 10 000.
   */
  readonly connectTimeoutMs: number;
}

export const CONNECT_TIMEOUT_MS = 10_000;
/** First words of a migrator's name in pg_stat_activity. */
export const MIGRATION_PURPOSE = 'filestore migrate';
const CONNECT_TIMEOUT_VARIABLES = ['FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS', 'PGPOOL_CONNECTION_TIMEOUT_MS'];
const SERVICE_URL_VARIABLES = ['FILESTORE_DATABASE_URL', 'DATABASE_URL'] as const;
export const MIGRATION_URL_VARIABLES = [
  'FILESTORE_MIGRATION_DATABASE_URL',
  ...SERVICE_URL_VARIABLES,
] as const;

/**
 * Connection for services, from FILESTORE_DATABASE_URL, else DATABASE_URL.
 * @returns undefined when neither is set.
 * @throws {SettingsError} naming the variable whose value cannot be used.
 */
export function serviceConnection(env: Environment = process.env): ConnectionSettings | undefined {
  return connectionFrom(env, SERVICE_URL_VARIABLES, 'filestore');
}

/**
 * Connection for migrations, from FILESTORE_MIGRATION_DATABASE_URL (a direct URL, if services connect through
 * a pooler), else as {@link serviceConnection}.
 * @returns undefined when no variable is set.
 * @throws {SettingsError} naming the variable whose value cannot be used.
 */
export function migrationConnection(env: Environment = process.env): ConnectionSettings | undefined {
  return connectionFrom(env, MIGRATION_URL_VARIABLES, MIGRATION_PURPOSE);
}

/** The error for a command or service that needs a database URL and has none. */
export function missingUrlError(reason: string): SettingsError {
  return new SettingsError(
    'FILESTORE_DATABASE_URL',
    paragraph(
      `No database URL: ${reason} Set FILESTORE_DATABASE_URL or DATABASE_URL,`,
      'for instance to postgres://user@host:5432/database.',
    ),
  );
}

/**
 * Pool settings from the environment.
 * @throws {SettingsError} naming the variable that is not a whole number in its range.
 */
export function poolSettings(env: Environment = process.env): PoolSettings {
  return {
    max: wholeNumber(env, ['FILESTORE_PGPOOL_MAX', 'PGPOOL_MAX'], 5, 1, 10_000),
    idleTimeoutMs: milliseconds(env, ['FILESTORE_PGPOOL_IDLE_TIMEOUT_MS', 'PGPOOL_IDLE_TIMEOUT_MS'], 30_000),
    connectTimeoutMs: milliseconds(env, CONNECT_TIMEOUT_VARIABLES, CONNECT_TIMEOUT_MS, 1),
  };
}

/** Time limits of a run of the migrations, and whether it accepts a pooler. */
export interface MigrationSettings {
  /**
   * Milliseconds to wait for another migrator, and to retry temporary failures: a table's lock, a blocked
   * index build, a connection that is lost again.
   * FILESTORE_MIGRATION_LOCK_WAIT_MS, default 300 000.
   */
  readonly lockWaitMs: number;
  /**
   * Longest time in milliseconds that one statement waits for a table's lock before it gives up. For that
   * long it can block all other statements on the table. The first wait is at most 100 ms, and each one is
   * 100 ms longer than the one before. FILESTORE_MIGRATION_LOCK_TIMEOUT_MS, default 5 000; 0: no limit.
   */
  readonly lockTimeoutMs: number;
  /**
   * Milliseconds that one statement of a migration may run. FILESTORE_MIGRATION_STATEMENT_TIMEOUT_MS,
   * default 0: no limit.
   */
  readonly statementTimeoutMs: number;
  /**
   * Milliseconds that one check of a migration may run. FILESTORE_MIGRATION_CHECK_TIMEOUT_MS,
   * default 60 000; 0: no limit.
   */
  readonly checkTimeoutMs: number;
  /** Milliseconds to wait for a starting server. FILESTORE_MIGRATION_CONNECT_WAIT_MS, default 30 000. */
  readonly connectWaitMs: number;
  /**
   * What to do about a pooler: refuse it, or trust that it gives each connection a separate session.
   * FILESTORE_MIGRATION_POOLER, `refuse` (default) or `session`.
   */
  readonly pooler: 'refuse' | 'session';
}

/**
 * Migration settings from the environment.
 * @param given Take precedence over the environment; a member that is undefined does not.
 * @throws {SettingsError} naming the variable or member that cannot be used.
 */
export function migrationSettings(
  env: Environment = process.env,
  given: Partial<MigrationSettings> = {},
): MigrationSettings {
  const members = Object.entries(given).map(([name, value]) => [`settings.${name}`, value?.toString()]);
  const all: Environment = { ...env, ...Object.fromEntries(members) };
  const read = (member: keyof MigrationSettings, variable: string, fallback: number) =>
    milliseconds(all, [`settings.${member}`, variable], fallback);
  return {
    lockWaitMs: read('lockWaitMs', 'FILESTORE_MIGRATION_LOCK_WAIT_MS', 300_000),
    lockTimeoutMs: read('lockTimeoutMs', 'FILESTORE_MIGRATION_LOCK_TIMEOUT_MS', 5_000),
    statementTimeoutMs: read('statementTimeoutMs', 'FILESTORE_MIGRATION_STATEMENT_TIMEOUT_MS', 0),
    checkTimeoutMs: read('checkTimeoutMs', 'FILESTORE_MIGRATION_CHECK_TIMEOUT_MS', 60_000),
    connectWaitMs: read('connectWaitMs', 'FILESTORE_MIGRATION_CONNECT_WAIT_MS', 30_000),
    pooler: readPooler(all),
  };
}

function readPooler(env: Environment): MigrationSettings['pooler'] {
  const variable = firstSet(env, ['settings.pooler', 'FILESTORE_MIGRATION_POOLER']);
  const text = variable === undefined ? 'refuse' : env[variable]?.trim();
  if (text === 'refuse' || text === 'session') return text;
  // Not quoted: it may be the pooler's URL.
  throw new SettingsError(
    variable ?? 'FILESTORE_MIGRATION_POOLER',
    paragraph(
      `${variable} must be refuse (the default), or session for a pooler in session mode.`,
      'Correct it, or unset it.',
    ),
  );
}

/**
 * Connection from the first of the variables that is set.
 * @param purpose First words of the session's name in pg_stat_activity.
 * @returns undefined when none is set.
 * @throws {SettingsError} naming the variable whose value cannot be used.
 */
export function connectionFrom(
  env: Environment,
  variables: readonly string[],
  purpose: string,
): ConnectionSettings | undefined {
  const variable = firstSet(env, variables);
  if (variable === undefined) return undefined;
  return {
    variable,
    applicationName: nameSession(purpose),
    connectTimeoutMs: milliseconds(env, CONNECT_TIMEOUT_VARIABLES, CONNECT_TIMEOUT_MS, 1),
    ...parseDatabaseUrl(variable, env[variable] ?? ''),
  };
}

/**
 * The session's name in pg_stat_activity. It tells an operator who waits for its locks when it began and
 * on which host. The server keeps only 63 bytes: a long host name loses its beginning, since names of pods differ at their ends.
 */
export function nameSession(purpose: string, host = hostname()): string {
  const start = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const name = `${purpose} ${start} `;
  return name + host.slice(-(63 - name.length));
}

/** The longest delay that Node's timers take. They end longer ones at once, so a sum of settings needs this bound too. */
export const LONGEST_TIMEOUT_MS = 2_147_483_647;

/** Milliseconds from the first of the variables that is set. */
export function milliseconds(
  env: Environment,
  variables: readonly string[],
  fallback: number,
  least = 0,
): number {
  return wholeNumber(env, variables, fallback, least, LONGEST_TIMEOUT_MS);
}

/**
 * A whole number from the first of the variables that is set.
 * @throws {SettingsError} naming the variable if it is not a whole number, or out of range.
 */
export function wholeNumber(
  env: Environment,
  variables: readonly string[],
  fallback: number,
  least: number,
  most: number,
): number {
  const variable = firstSet(env, variables);
  if (variable === undefined) return fallback;
  const text = (env[variable] ?? '').trim();
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    const given = isQuotable(text) ? `"${text}"` : 'a text that is not shown here';
    const message = paragraph(
      `${variable} is ${given}, which is not a whole number from ${least} to ${most}.`,
      `Correct it, or unset it for the default of ${fallback}.`,
    );
    throw new SettingsError(variable, message);
  }
  return value;
}

/** The value of a variable that a user names. `env.constructor` is inherited, and no variable. */
export function variableOf(env: Environment, variable: string): string | undefined {
  return Object.hasOwn(env, variable) ? env[variable] : undefined;
}

/** The first of the variables that is set. */
function firstSet(env: Environment, variables: readonly string[]): string | undefined {
  return variables.find((name) => isSet(variableOf(env, name)));
}

/** An empty variable counts as not set: compose files and CI systems pass an omitted variable as empty. */
export function isSet(value: string | undefined): boolean {
  return value !== undefined && value.trim() !== '';
}
