import { randomBytes } from 'node:crypto';
import { availableParallelism, loadavg } from 'node:os';
import type { Client } from 'pg';
import { connectionTo, databaseUrl } from '../harness/connection.ts';
import { systemBinaries } from '../harness/system-binaries.ts';
import { runMigrations } from '../src/index.ts';
import { findEmbeddedBinaries } from '../src/testing/embedded/binaries.ts';
import { startTemporaryServer } from '../src/testing/embedded/temporary-server.ts';
import { withClient } from '../src/testing/with-client.ts';

export interface BenchServer {
  /** URL of a database, with a role that may create databases. */
  readonly adminUrl: string;
  stop(): Promise<void>;
}

export interface BenchDatabase {
  readonly url: string;
  readonly client: Client;
}

/** Facts that a reader needs to judge the figures. */
export interface Environment {
  readonly postgres: string;
  readonly fsync: string;
  readonly settings: string;
  readonly cores: number;
  /** Load of the machine before the first measurement: near 0 when nothing else runs. */
  readonly loadBefore: number;
}

// Enough memory for the working set, the cost of a page on an SSD, and no checkpoint during a measurement. Durability is that of
// production.
const SETTINGS = [
  'fsync=on',
  'shared_buffers=1GB',
  'random_page_cost=1.1',
  'max_wal_size=16GB',
  'checkpoint_timeout=1h',
  'max_connections=100',
  'jit=off',
];

/** The folder of initdb and postgres: the embedded ones, or with TEST_POSTGRES=system the system's. */
export async function findBinaries(folder: string, env: NodeJS.ProcessEnv): Promise<string> {
  return env.TEST_POSTGRES === 'system' ? systemBinaries(env) : findEmbeddedBinaries(folder);
}

/** The server of DATABASE_URL, or a separate one: the embedded binaries, or with TEST_POSTGRES=system the system's. */
export async function openServer(env: NodeJS.ProcessEnv): Promise<BenchServer> {
  if (env.DATABASE_URL) return { adminUrl: env.DATABASE_URL, stop: async () => undefined };
  return startBenchServer(SETTINGS, env);
}

/** Starts a server for one comparison, or for all of a run. */
export async function startBenchServer(
  settings: readonly string[],
  env: NodeJS.ProcessEnv,
): Promise<BenchServer> {
  const { url, stop } = await startTemporaryServer({
    prefix: 'fs-bench-',
    findBinaries: (folder) => findBinaries(folder, env),
    settings,
  });
  // Large files must not stay in the temporary folder. A signal comes twice when npm passes on what its child also got: the
  // second one must not end the process before.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.on(signal, () => void stop().then(() => process.exit(130)));
  }
  return { adminUrl: url, stop };
}

/** Runs `work` with a new database that has the schema, and drops it afterwards; `locale` as for withEmptyDatabase. */
export async function withDatabase<T>(
  server: BenchServer,
  work: (database: BenchDatabase) => Promise<T>,
  locale = '',
): Promise<T> {
  return withEmptyDatabase(
    server,
    async (url) => {
      await runMigrations({ connection: connectionTo(url) });
      return withClient(url, (client) => work({ url, client }));
    },
    locale,
  );
}

/**
 * Runs `work` with a new, empty database, and drops it afterwards. `locale` is a clause of `create database`, such as
 * `locale_provider icu icu_locale 'en-US'`; empty for the server's default.
 */
export async function withEmptyDatabase<T>(
  server: BenchServer,
  work: (url: string) => Promise<T>,
  locale = '',
): Promise<T> {
  const name = `filestore_bench_${randomBytes(4).toString('hex')}`;
  await withClient(server.adminUrl, (admin) =>
    admin.query(`create database ${name} encoding 'UTF8' ${locale} template template0`),
  );
  try {
    return await work(databaseUrl(server.adminUrl, name));
  } finally {
    await withClient(server.adminUrl, (admin) => admin.query(`drop database ${name} with (force)`));
  }
}

export function describeServer(server: BenchServer): Promise<Environment> {
  return withClient(server.adminUrl, async (admin) => {
    const { rows } = await admin.query(`
      select
        current_setting('server_version') as postgres,
        current_setting('fsync')          as fsync,
        concat_ws(', ',
          'synchronous_commit ' || current_setting('synchronous_commit'),
          'full_page_writes '   || current_setting('full_page_writes'),
          'shared_buffers '     || current_setting('shared_buffers'),
          'random_page_cost '   || current_setting('random_page_cost')
        ) as settings`);
    return { ...rows[0], cores: availableParallelism(), loadBefore: loadavg()[0] ?? 0 };
  });
}
