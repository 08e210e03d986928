import { type ConnectionSettings, migrationConnection } from '../src/index.ts';

/** The URL with another database's name. */
export function databaseUrl(url: string, database: string): string {
  const other = new URL(url);
  other.pathname = `/${database}`;
  return other.href;
}

/** A URL as the package reads it from the environment. */
export function connectionTo(url: string): ConnectionSettings {
  const connection = migrationConnection({ DATABASE_URL: url });
  if (connection === undefined) throw new Error('no URL');
  return connection;
}
