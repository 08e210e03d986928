import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { PoolConfig } from 'pg';
import { type DatabaseUrl, parseDatabaseUrl, type TlsSettings } from './database-url.ts';
import { SettingsError } from './errors.ts';

/** Environment variables by name; `process.env` has this shape. */
export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * One way into one database, for the pool of a service and for the migration runner alike. What is absent is
 * left to pg, which asks the PG* variables and ~/.pgpass, as libpq does.
 */
export interface ConnectionSettings extends DatabaseUrl {
  /** What pg_stat_activity shows. */
  readonly applicationName: string;
  /** Milliseconds to wait for a connection. */
  readonly connectTimeoutMs: number;
}

/** Size and patience of a pool. */
export interface PoolSettings {
  /** Most connections at a time. FILESTORE_PGPOOL_MAX, else PGPOOL_MAX, else 5. */
  readonly max: number;
  /** Milliseconds after which an unused connection is closed. FILESTORE_PGPOOL_IDLE_TIMEOUT_MS, else PGPOOL_IDLE_TIMEOUT_MS, else 30 000. */
  readonly idleTimeoutMs: number;
  /** Milliseconds to wait for a connection. FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS, else PGPOOL_CONNECTION_TIMEOUT_MS, else 10 000. */
  readonly connectionTimeoutMs: number;
}

const SERVICE_URL_VARIABLES = ['FILESTORE_DATABASE_URL', 'DATABASE_URL'] as const;
const MIGRATION_URL_VARIABLES = ['FILESTORE_MIGRATION_DATABASE_URL', ...SERVICE_URL_VARIABLES] as const;

/** The longest delay that Node's timers take; pg hands these settings to one. */
const LONGEST_TIMEOUT_MS = 2_147_483_647;

/**
 * Connection for services, from FILESTORE_DATABASE_URL, else DATABASE_URL.
 * @returns undefined when neither is set.
 * @throws {SettingsError} naming the variable whose value cannot be used.
 */
export function serviceConnection(env: Environment = process.env): ConnectionSettings | undefined {
  return connectionFrom(env, SERVICE_URL_VARIABLES, 'filestore');
}

/**
 * Connection for migrations, from FILESTORE_MIGRATION_DATABASE_URL (a direct URL, where services go through
 * a pooler), else as {@link serviceConnection}.
 * @returns undefined when no variable is set.
 * @throws {SettingsError} naming the variable whose value cannot be used.
 */
export function migrationConnection(env: Environment = process.env): ConnectionSettings | undefined {
  return connectionFrom(env, MIGRATION_URL_VARIABLES, 'filestore migrate');
}

/** The error for a command or service that needs a database URL and has none. */
export function missingUrlError(reason: string): SettingsError {
  return new SettingsError(
    'FILESTORE_DATABASE_URL',
    `No database URL: ${reason} Set FILESTORE_DATABASE_URL or DATABASE_URL, for instance to postgres://user@host:5432/database.`,
  );
}

/**
 * Pool settings from the environment.
 * @throws {SettingsError} naming the variable that is not a whole number in its range.
 */
export function poolSettings(env: Environment = process.env): PoolSettings {
  return {
    max: wholeNumber(env, ['FILESTORE_PGPOOL_MAX', 'PGPOOL_MAX'], 5, 1, 10_000),
    idleTimeoutMs: wholeNumber(
      env,
      ['FILESTORE_PGPOOL_IDLE_TIMEOUT_MS', 'PGPOOL_IDLE_TIMEOUT_MS'],
      30_000,
      0,
      LONGEST_TIMEOUT_MS,
    ),
    connectionTimeoutMs: wholeNumber(
      env,
      ['FILESTORE_PGPOOL_CONNECTION_TIMEOUT_MS', 'PGPOOL_CONNECTION_TIMEOUT_MS'],
      10_000,
      1,
      LONGEST_TIMEOUT_MS,
    ),
  };
}

/**
 * The settings in pg's form. The session's transactions are pinned to READ COMMITTED, which the schema's
 * functions assume.
 * @throws {SettingsError} when a certificate file named by the URL cannot be read.
 */
export function poolConfig(connection: ConnectionSettings): PoolConfig & { readonly database: string } {
  const { tls } = connection;
  return {
    ...(connection.host !== undefined && { host: connection.host }),
    ...(connection.port !== undefined && { port: connection.port }),
    ...(connection.user !== undefined && { user: connection.user }),
    ...(connection.password !== undefined && { password: connection.password }),
    ...(tls !== undefined && { ssl: tls.mode === 'disable' ? false : tlsConfig(tls) }),
    database: connection.database,
    application_name: connection.applicationName,
    connectionTimeoutMillis: connection.connectTimeoutMs,
    // A startup option, not a "set" on connecting: that would cost a round trip and outlive the session in a pooler.
    options: `-c default_transaction_isolation=read\\ committed${connection.options === undefined ? '' : ` ${connection.options}`}`,
  };
}

/** The database in words that hold no secret, such as `database "app" on db.example:5432`. */
export function describeConnection(connection: ConnectionSettings): string {
  const host = connection.host ?? process.env.PGHOST ?? 'localhost';
  const port = connection.port ?? process.env.PGPORT ?? 5432;
  return `database "${connection.database}" on ${host.startsWith('/') ? `the socket in ${host}` : `${host}:${port}`}`;
}

function connectionFrom(
  env: Environment,
  variables: readonly string[],
  purpose: string,
): ConnectionSettings | undefined {
  const variable = variables.find((name) => isSet(env[name]));
  if (variable === undefined) return undefined;
  return {
    // Host and process, so that whoever waits for this session's locks knows where to look.
    applicationName: `${purpose} ${hostname()} ${process.pid}`,
    ...parseDatabaseUrl(variable, env[variable] ?? ''),
    connectTimeoutMs: poolSettings(env).connectionTimeoutMs,
  };
}

function tlsConfig(tls: TlsSettings) {
  return {
    rejectUnauthorized: tls.mode === 'verify',
    ...(tls.rootCertificate !== undefined && { ca: readPem('sslrootcert', tls.rootCertificate) }),
    ...(tls.certificate !== undefined && { cert: readPem('sslcert', tls.certificate) }),
    ...(tls.key !== undefined && { key: readPem('sslkey', tls.key) }),
  };
}

function readPem(parameter: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SettingsError(
      parameter,
      `The database URL's ${parameter} names a file that cannot be read: ${path}. Correct the path, or leave the parameter out.`,
      { cause },
    );
  }
}

function wholeNumber(
  env: Environment,
  variables: readonly string[],
  fallback: number,
  least: number,
  most: number,
): number {
  const variable = variables.find((name) => isSet(env[name]));
  if (variable === undefined) return fallback;
  const text = (env[variable] ?? '').trim();
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < least || value > most) {
    throw new SettingsError(
      variable,
      `${variable} is "${text}", which is not a whole number from ${least} to ${most}. Correct it, or unset it for the default of ${fallback}.`,
    );
  }
  return value;
}

/** A variable set to nothing counts as not set: that is how compose files and CI systems leave one out. */
function isSet(value: string | undefined): boolean {
  return value !== undefined && value.trim() !== '';
}
