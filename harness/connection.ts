import { type ConnectionSettings, migrationConnection } from '../src/index.ts';

/** The URL with another database name. */
export function databaseUrl(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${database}`;
  return other.href;
}

/** The settings that the package reads from a URL in the environment. */
export function connectionTo(url: string): ConnectionSettings {
  const connection = migrationConnection({ DATABASE_URL: url });
  if (connection === undefined) throw new Error('no URL');
  return connection;
}
