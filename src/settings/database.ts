import { createPrivateKey, X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { isIP, isIPv6 } from 'node:net';
import pg, { type ClientConfig, type CustomTypesConfig, type PoolConfig } from 'pg';
import { SettingsError } from '../errors.ts';
import { paragraph, printable } from '../text.ts';
import { parserOf } from '../value-parsers.ts';
import { type TlsSettings, tlsOf } from './database-url.ts';
import {
  CONNECT_TIMEOUT_MS,
  type ConnectionSettings,
  connectionFrom,
  type Environment,
  isSet,
  LONGEST_TIMEOUT_MS,
  MIGRATION_PURPOSE,
  migrationConnection,
  missingUrlError,
  nameSession,
} from './settings.ts';

/** A database, resolved once for all the connections to it. */
export interface Database {
  /** In words without a secret, such as `database "app" on db.example:5432`. */
  readonly where: string;
  readonly config: DatabaseConfig;
}

/** A connection in pg's form. */
export type DatabaseConfig = ClientConfig & {
  readonly database: string;
  readonly connectionTimeoutMillis: number;
};

/** Which database: the first of these that is given. */
export interface DatabaseOptions {
  /** A URL, such as `postgres://user:password@host:5432/database`. */
  readonly connectionString?: string;
  /**
   * What {@link migrationConnection} returns, or what `new pg.Client` takes. Of the latter, a run uses the
   * members for the URL, host, port, user, password, database, ssl, options, application_name and
   * connectionTimeoutMillis.
   */
  readonly connection?: ConnectionSettings | ClientConfig;
  /**
   * Variables with the URL ({@link migrationConnection}) and with the other settings. Default:
   * `process.env`.
   */
  readonly env?: Environment;
}

/**
 * Resolves the database to migrate.
 * @throws {SettingsError} when none is named, or the URL or connection cannot be used.
 */
export function resolveDatabase({ connectionString, connection, env }: DatabaseOptions): Database {
  if (connectionString !== undefined) return databaseFromUrl('connectionString', connectionString, env);
  if (connection === undefined) return databaseOf(migrationConnection(env) ?? refuseMissingUrl());
  return 'connectTimeoutMs' in connection ? databaseOf(connection) : fromClientConfig(connection, env);
}

/** @throws {SettingsError} when a certificate file named by the URL cannot be used. */
export function databaseOf(connection: ConnectionSettings): Database {
  return { config: clientConfig(connection), where: describeConnection(connection) };
}

/** The database in words without a secret, such as `database "app" on db.example:5432`. */
export function describeConnection(connection: ConnectionSettings): string {
  const host = connection.host ?? process.env.PGHOST ?? 'localhost';
  const port = connection.port ?? process.env.PGPORT ?? 5432;
  const address = isIPv6(host) ? `[${host}]:${port}` : `${host}:${port}`;
  return printable(
    `database "${connection.database}" on ${host.startsWith('/') ? `the socket in ${host}` : address}`,
  );
}

/**
 * @param option What holds the URL, for messages.
 * @throws {SettingsError} that says so, and never quotes the URL.
 */
export function databaseFromUrl(option: string, url: string, env: Environment = process.env): Database {
  return databaseOf(connectionOfUrl(option, url, env));
}

function connectionOfUrl(option: string, url: string, env: Environment = process.env): ConnectionSettings {
  return connectionFrom({ ...env, [option]: url }, [option], MIGRATION_PURPOSE) ?? refuseMissingUrl();
}

function fromClientConfig(client: ClientConfig, env: Environment | undefined): Database {
  const { connectionString, host, port, user, password, database, options, ssl } = copyOf(client);
  if (typeof password === 'function') {
    throw new SettingsError(
      'connection',
      'connection.password is a function. Call it, and pass what it returns.',
    );
  }
  if (!isTransferable(ssl)) {
    throw new SettingsError(
      'connection',
      paragraph(
        'connection.ssl contains a function, which cannot be passed to the thread that migrates.',
        'Pass only ca, cert, key and rejectUnauthorized.',
      ),
    );
  }
  if (connectionString === undefined && (database === undefined || database === '')) {
    throw new SettingsError('connection', 'connection names no database. Add database or connectionString.');
  }
  const named: ConnectionSettings =
    connectionString === undefined
      ? {
          ...(host !== undefined && { host }),
          ...(port !== undefined && { port }),
          ...(user !== undefined && { user }),
          ...(password !== undefined && { password }),
          ...(options !== undefined && { options }),
          database: database ?? '',
          applicationName: nameSession(MIGRATION_PURPOSE),
          connectTimeoutMs: CONNECT_TIMEOUT_MS,
        }
      : connectionOfUrl('connection.connectionString', connectionString, env);
  const connectTimeoutMs = client.connectionTimeoutMillis || named.connectTimeoutMs;
  const { config, where } = databaseOf({ ...named, connectTimeoutMs });
  return {
    where,
    config: {
      ...config,
      // As in pg, the URL takes precedence over the other members.
      ...(ssl !== undefined && named.tls === undefined && { ssl }),
      ...(client.application_name !== undefined && { application_name: client.application_name }),
    },
  };
}

/**
 * A copy for another user of the connection: pg hides `key` in the object that it gets, so that copies of
 * that object would lack it.
 */
export function copyOf<Config extends ClientConfig>(config: Config): Config {
  const { ssl } = config;
  if (typeof ssl !== 'object' || ssl === null) return config;
  return { ...config, ssl: { ...ssl, ...(ssl.key !== undefined && { key: ssl.key }) } };
}

/** Bytes that a server keeps of a name. */
const LONGEST_NAME = 63;

function isTransferable(value: unknown): boolean {
  try {
    structuredClone(value);
    return true;
  } catch {
    return false;
  }
}

function refuseMissingUrl(): never {
  throw missingUrlError('the migrations need one.');
}

/** Values of libpq's variables that ask for a protection, which pg would leave out without a word. */
const PROTECTIONS: Readonly<Record<string, RegExp>> = {
  PGCHANNELBINDING: /^require$/,
  PGGSSENCMODE: /^require$/,
  PGREQUIREAUTH: /\S/,
  PGREQUIRESSL: /^1$/,
};

function refuseVariables(): void {
  if (isSet(process.env.PGREPLICATION)) {
    throw new SettingsError(
      'PGREPLICATION',
      'PGREPLICATION makes connections that can only replicate. Unset it for this program.',
    );
  }
  for (const [variable, value] of Object.entries(PROTECTIONS)) {
    if (!value.test(process.env[variable] ?? '')) continue;
    throw new SettingsError(
      variable,
      paragraph(
        `${variable} asks for a protection that connections of this program do not have.`,
        'Unset it for this program. PGSSLMODE=verify-full encrypts connections and checks the server.',
      ),
    );
  }
}

/**
 * The connection in pg's form, without settings for the session.
 * @throws {SettingsError} when a certificate file named by the URL cannot be used.
 */
export function clientConfig(connection: ConnectionSettings): DatabaseConfig {
  const tls = tlsOf(connection);
  refuseVariables();
  if (Buffer.byteLength(connection.database) > LONGEST_NAME) {
    const place = connection.variable ?? 'connection';
    throw new SettingsError(
      place,
      paragraph(
        `${place} names a database with more than ${LONGEST_NAME} bytes.`,
        'The server would shorten the name, and could use another database. Correct it.',
      ),
    );
  }
  return {
    ...(connection.host !== undefined && { host: connection.host }),
    ...(connection.port !== undefined && { port: connection.port }),
    ...(connection.user !== undefined && { user: connection.user }),
    ...(connection.password !== undefined && { password: connection.password }),
    ...(tls !== undefined && { ssl: tls.mode === 'disable' ? false : tlsConfig(tls, connection.host) }),
    ...(connection.options !== undefined && { options: connection.options }),
    database: connection.database,
    application_name: connection.applicationName,
    connectionTimeoutMillis: Math.min(connection.connectTimeoutMs, LONGEST_TIMEOUT_MS),
    // Without it, a lost server would be noticed only hours later.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  };
}

/**
 * TLS in the form of Node's tls.connect.
 * @throws {SettingsError} naming the parameter of the URL whose file is missing or has other content.
 */
function tlsConfig(tls: TlsSettings, host: string | undefined) {
  return {
    rejectUnauthorized: tls.mode === 'verify',
    // An older pg, as a dependency of graphile-migrate, does not pass an IP address to TLS. Node would then
    // check the certificate for "localhost".
    ...(host !== undefined && isIP(host) !== 0 && { host }),
    ...(tls.rootCertificate !== undefined && { ca: readCertificate('sslrootcert', tls.rootCertificate) }),
    ...(tls.certificate !== undefined && { cert: readCertificate('sslcert', tls.certificate) }),
    ...(tls.key !== undefined && { key: readKey('sslkey', tls.key) }),
  };
}

// Node silently ignores a CA file that it cannot read, and then trusts no server.
function readCertificate(parameter: string, path: string): string {
  const pem = readPem(parameter, path);
  parse(parameter, path, 'a certificate', () => new X509Certificate(pem));
  return pem;
}

function readKey(parameter: string, path: string): string {
  const pem = readPem(parameter, path);
  parse(parameter, path, 'a private key without a passphrase', () => createPrivateKey(pem));
  return pem;
}

function parse(parameter: string, path: string, what: string, work: () => unknown): void {
  try {
    work();
  } catch (cause) {
    throw new SettingsError(
      parameter,
      paragraph(
        `The database URL's ${parameter} names a file that does not contain ${what} in PEM form: ${path}.`,
        'Name another file, or remove the parameter.',
      ),
      { cause },
    );
  }
}

function readPem(parameter: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new SettingsError(
      parameter,
      paragraph(
        `The database URL's ${parameter} names a file that cannot be read: ${path}.`,
        'Correct the path, or remove the parameter.',
      ),
      { cause },
    );
  }
}

/**
 * Values of the types of rows have the parsers of this package; other values have those that pg has for
 * them.
 */
const POOL_TYPES: CustomTypesConfig = Object.freeze({
  getTypeParser: (oid: number, format: 'text' | 'binary' = 'text') =>
    (format === 'text' ? parserOf(oid) : undefined) ?? pg.types.getTypeParser(oid, format),
});

/** Startup options: a "set" would cost a round trip, and stay for the next client of a pooler. */
const POOL_OPTIONS = '-c default_transaction_isolation=read\\ committed -c DateStyle=ISO';

/**
 * The same for a service's pool. Its transactions are READ COMMITTED, which the schema's functions assume.
 * Its rows have the types of `@apphub/filestore/rows`, whatever parsers the program gives to pg.
 * @throws {SettingsError} when a certificate file named by the URL cannot be used.
 */
export function poolConfig(connection: ConnectionSettings): PoolConfig & { readonly database: string } {
  return {
    ...clientConfig(connection),
    types: POOL_TYPES,
    options: [POOL_OPTIONS, connection.options ?? process.env.PGOPTIONS ?? []].flat().join(' '),
  };
}
