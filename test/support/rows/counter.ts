import { afterEach, beforeAll, beforeEach, vi } from 'vitest';
import { closePool } from '../../../src/index.ts';
import type { TestDatabase } from '../databases/test-database.ts';
import { rolesForFile } from '../roles/roles.ts';
import type { Counter } from './counted-commands.ts';
import { createMount, createNode } from './nodes.ts';

/**
 * A counter for each test, and the pool of a role of level `service`.
 * @param through Changes the URL of the pool, for a proxy.
 */
export function counterForEachTest(
  database: () => TestDatabase,
  through: (url: string) => Promise<string> = async (url) => url,
): () => Counter {
  const createRole = rolesForFile(database);
  let url: string;
  let counter: Counter | undefined;
  beforeAll(async () => {
    const role = await createRole();
    await database().query("select filestore.grant_access($1, 'service')", [role.name]);
    url = role.url;
  });
  beforeEach(async () => {
    vi.stubEnv('FILESTORE_DATABASE_URL', await through(url));
    const mount = await createMount(database());
    const fileId = await createNode(database(), mount, mount.rootId, 'counter');
    counter = { mountId: mount.id, fileId };
  });
  afterEach(async () => {
    await closePool();
    vi.unstubAllEnvs();
  });
  return () => {
    if (counter === undefined) throw new Error('the counter exists only inside a test');
    return counter;
  };
}
