import pg from 'pg';
import { tlsOf } from '../settings/database-url.ts';
import type { ConnectionSettings } from '../settings/settings.ts';

const SSL_MODES = { disable: 'disable', 'no-verify': 'require', verify: 'verify-full' } as const;

/** libpq's connection string for a subscription. It contains the password. */
export function conninfoOf(connection: ConnectionSettings): string {
  const { host, port, user, database } = connection;
  const tls = tlsOf(connection);
  const parts: Readonly<Record<string, string | undefined>> = {
    host: host ?? process.env.PGHOST ?? 'localhost',
    port: String(port ?? process.env.PGPORT ?? 5432),
    dbname: database,
    // As for the connections of this process. The server of the target would use its own name.
    user: user ?? process.env.PGUSER ?? pg.defaults.user,
    password: passwordOf(connection),
    sslmode: tls === undefined ? undefined : SSL_MODES[tls.mode],
    // Paths on the target's server.
    sslrootcert: tls?.rootCertificate,
    sslcert: tls?.certificate,
    sslkey: tls?.key,
  };
  return Object.entries(parts)
    .flatMap(([key, value]) =>
      value === undefined ? [] : [`${key}='${value.replaceAll(/['\\]/g, '\\$&')}'`],
    )
    .join(' ');
}

export function passwordOf({ password }: ConnectionSettings): string | undefined {
  return password ?? process.env.PGPASSWORD;
}
