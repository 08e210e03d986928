import { systemBinaries } from '../../../harness/system-binaries.ts';
import { findEmbeddedBinaries } from '../../../src/testing/embedded/binaries.ts';
import { startTemporaryServer, WITHOUT_DURABILITY } from '../../../src/testing/embedded/temporary-server.ts';

/** A server for one run of the tests. */
export interface TestServer {
  /** A description of the server. */
  readonly name: string;
  /** URL of a database of a role that may create databases and roles. */
  readonly adminUrl: string;
  stop(): Promise<void>;
}

/** Compiling a query takes longer than reading the small catalogues of tests. */
const FAST = [...WITHOUT_DURABILITY, 'max_connections=200', 'jit=off'];

/**
 * Uses the first available server: TEST_DATABASE_URL, a container, the embedded binaries, or the
 * system's. TEST_POSTGRES=container, embedded or system selects one kind; TEST_POSTGRES_BIN is the
 * folder of the system's programs.
 */
export async function startTestServer(env: NodeJS.ProcessEnv = process.env): Promise<TestServer> {
  const wanted = env.TEST_POSTGRES;
  if (wanted === undefined && env.TEST_DATABASE_URL) {
    return {
      name: 'the server of TEST_DATABASE_URL',
      adminUrl: env.TEST_DATABASE_URL,
      stop: async () => undefined,
    };
  }
  const refusals: string[] = [];
  for (const [kind, start] of Object.entries(STARTERS)) {
    if (wanted !== undefined && wanted !== kind) continue;
    try {
      return await start(env);
    } catch (error) {
      refusals.push(`${kind}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  throw new Error(`No Postgres for the tests (set TEST_DATABASE_URL).\n${refusals.join('\n')}`);
}

const STARTERS: Readonly<Record<string, (env: NodeJS.ProcessEnv) => Promise<TestServer>>> = {
  container: startContainer,
  embedded: () => startLocal('embedded Postgres', findEmbeddedBinaries),
  system: (env) => {
    const binaries = systemBinaries(env);
    return startLocal(`system Postgres in ${binaries}`, async () => binaries);
  },
};

/**
 * The folder of initdb and postgres for an additional server: the system's with TEST_POSTGRES=system, else
 * the embedded ones.
 * @param folder A folder that the server's account can reach, for a copy of the embedded ones.
 */
export async function findBinaries(folder: string, env: NodeJS.ProcessEnv = process.env): Promise<string> {
  return env.TEST_POSTGRES === 'system' ? systemBinaries(env) : findEmbeddedBinaries(folder);
}

/** Start of the names of the folders of servers that tests start. */
export const SERVER_FOLDER_PREFIX = 'fs-pg-';

async function startContainer(env: NodeJS.ProcessEnv): Promise<TestServer> {
  const { getContainerRuntimeClient } = await import('testcontainers');
  await getContainerRuntimeClient();
  const { PostgreSqlContainer } = await import('@testcontainers/postgresql');
  const image = env.TEST_POSTGRES_IMAGE ?? 'postgres:17';
  const container = await new PostgreSqlContainer(image)
    .withCommand(['postgres', ...FAST.flatMap((setting) => ['-c', setting])])
    .start();
  return {
    name: `container of ${image}`,
    adminUrl: container.getConnectionUri(),
    stop: async () => {
      await container.stop();
    },
  };
}

async function startLocal(
  name: string,
  findBinaries: (folder: string) => Promise<string>,
): Promise<TestServer> {
  const { url, stop } = await startTemporaryServer({
    prefix: SERVER_FOLDER_PREFIX,
    findBinaries,
    settings: FAST,
  });
  return { name, adminUrl: url, stop };
}
