import type { ConnectionSettings } from '../settings/settings.ts';

const SSL_MODES = { disable: 'disable', 'no-verify': 'require', verify: 'verify-full' } as const;

/** libpq's connection string for a subscription. It contains the password. */
export function conninfoOf(connection: ConnectionSettings): string {
  const { host, port, user, database, tls } = connection;
  const parts: Readonly<Record<string, string | undefined>> = {
    host: host ?? process.env.PGHOST ?? 'localhost',
    port: String(port ?? process.env.PGPORT ?? 5432),
    dbname: database,
    user,
    password: passwordOf(connection),
    sslmode: tls === undefined ? undefined : SSL_MODES[tls.mode],
    // A path on the target's server.
    sslrootcert: tls?.rootCertificate,
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
