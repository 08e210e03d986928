import type { ClientConfig, PoolConfig } from 'pg';
import { type ConnectionSettings, describeConnection } from './settings.ts';
import { tlsConfig } from './tls.ts';

/** A database, resolved once for all the connections to it. */
export interface Database {
  /** In words that hold no secret, such as `database "app" on db.example:5432`. */
  readonly where: string;
  readonly config: DatabaseConfig;
}

/** A connection in pg's form. */
export type DatabaseConfig = ClientConfig & {
  readonly database: string;
  readonly connectionTimeoutMillis: number;
};

/**
 * @throws {SettingsError} when a certificate file named by the URL cannot be used.
 */
export function databaseOf(connection: ConnectionSettings): Database {
  return { config: clientConfig(connection), where: describeConnection(connection) };
}

/**
 * The connection in pg's form, without settings for the session.
 * @throws {SettingsError} when a certificate file named by the URL cannot be used.
 */
export function clientConfig(connection: ConnectionSettings): DatabaseConfig {
  const { tls } = connection;
  return {
    ...(connection.host !== undefined && { host: connection.host }),
    ...(connection.port !== undefined && { port: connection.port }),
    ...(connection.user !== undefined && { user: connection.user }),
    ...(connection.password !== undefined && { password: connection.password }),
    ...(tls !== undefined && { ssl: tls.mode === 'disable' ? false : tlsConfig(tls, connection.host) }),
    ...(connection.options !== undefined && { options: connection.options }),
    database: connection.database,
    application_name: connection.applicationName,
    connectionTimeoutMillis: connection.connectTimeoutMs,
    // Else a server that vanished without a word would be missed only hours later.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  };
}

/**
 * The same for a service's pool, whose transactions are pinned to READ COMMITTED, which the schema's functions
 * assume.
 * @throws {SettingsError} when a certificate file named by the URL cannot be used.
 */
export function poolConfig(connection: ConnectionSettings): PoolConfig & { readonly database: string } {
  return {
    ...clientConfig(connection),
    // A startup option, not a "set" on connecting: that would cost a round trip and outlive the session in a pooler.
    options: `-c default_transaction_isolation=read\\ committed${connection.options === undefined ? '' : ` ${connection.options}`}`,
  };
}
