import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { closePool, getPool, runCommand } from '../../src/index.ts';
import {
  createMount,
  createNode,
  deleteNode,
  directoryTotals,
  ensureDirectory,
  isRefusal,
  listDirectory,
  moveNode,
  restoreNode,
  type SqlClient,
} from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

beforeAll(async () => {
  const role = await createRole();
  await database().query("select filestore.grant_access($1, 'service')", [role.name]);
  vi.stubEnv('FILESTORE_DATABASE_URL', role.url);
  await createMount(getPool(), {
    mount: { mount_key: 'media', backend_kind: 'local', root_path: '/srv/media' },
  });
});
afterAll(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

/** A small service. */
const service = {
  upload: (path: string, name: string, size: bigint) =>
    journalled('upload', { path, name }, async (client) => {
      const directory = await ensureDirectory(client, { mountKey: 'media', path });
      return createNode(client, {
        parentId: directory.id,
        name,
        sizeBytes: size,
        metadata: { tags: ['new'] },
      });
    }),
  rename: (nodeId: string, newName: string, expectedVersion: number) =>
    journalled('rename', { nodeId, newName }, (client) =>
      moveNode(client, { nodeId, newName, expectedVersion }),
    ),
  remove: (nodeId: string) =>
    journalled('remove', { nodeId }, (client) => deleteNode(client, { nodeId, recursive: true })),
  undelete: (nodeId: string) =>
    journalled('undelete', { nodeId }, (client) => restoreNode(client, { nodeId, withTree: true })),
  async list(path: string) {
    const directory = await ensureDirectory(getPool(), { mountKey: 'media', path });
    const nodes = await listDirectory(getPool(), { directoryId: directory.id, pageSize: 100 });
    return nodes.map(({ name }) => name);
  },
  async totals(path: string) {
    const { id: nodeId } = await ensureDirectory(getPool(), { mountKey: 'media', path });
    const totals = await directoryTotals(getPool(), { nodeId });
    return [totals?.size_bytes, totals?.file_count];
  },
};

/** Runs work as a command, whose result is the node that it returns. */
async function journalled(
  command: string,
  parameters: Record<string, string>,
  work: (
    client: SqlClient,
  ) => Promise<{ readonly id: string; readonly path: string; readonly state: string }>,
) {
  const outcome = await runCommand(
    { command, parameters, mountKey: 'media', principal: 'ada' },
    async (client) => {
      const { id, path, state } = await work(client);
      return { result: { id, path, state }, affectedNodeIds: [id] };
    },
  );
  if (outcome.state !== 'done') throw new Error(`${command} is ${outcome.state}`);
  return { ...outcome.result, entry: outcome.entry };
}

test('a service with only typed calls uploads, lists, renames, deletes, restores, and writes its journal', async () => {
  const { entry, ...node } = await service.upload('scans/2026', 'page.png', 2048n);
  expect(node).toMatchObject({ path: 'scans/2026/page.png', state: 'active' });
  expect(entry).toMatchObject({ status: 'succeeded', affected_node_ids: [node.id], error: null });
  await service.upload('scans/2026', 'back.png', 1024n);
  expect(await service.list('scans/2026')).toEqual(['back.png', 'page.png']);
  expect(await service.totals('scans')).toEqual(['3072', '2']);

  expect(await service.rename(node.id, 'front.png', 1)).toMatchObject({ path: 'scans/2026/front.png' });
  expect(await service.list('scans/2026')).toEqual(['back.png', 'front.png']);

  const directory = await ensureDirectory(getPool(), { mountKey: 'media', path: 'scans/2026' });
  expect(await service.remove(directory.id)).toMatchObject({ state: 'deleted' });
  expect(await service.list('scans')).toEqual([]);
  expect(await service.totals('scans')).toEqual(['0', '0']);

  expect(await service.undelete(directory.id)).toMatchObject({ state: 'active' });
  expect(await service.list('scans/2026')).toEqual(['back.png', 'front.png']);
  expect(await service.totals('scans')).toEqual(['3072', '2']);
});

test('a refused command of the service leaves a failed entry and no node', async () => {
  await service.upload('letters', 'taken.txt', 1n);
  const refused = await service.upload('letters', 'taken.txt', 2n).catch((error: unknown) => error);
  expect(isRefusal(refused, 'nodes_name_taken')).toBe(true);
  const { id } = await ensureDirectory(getPool(), { mountKey: 'media', path: 'letters' });
  const stale = await service.rename(id, 'post', 7).catch((error: unknown) => error);
  expect(isRefusal(stale, 'nodes_stale')).toBe(true);
  expect(
    await one(
      database(),
      "select array_agg(error ->> 'constraint' order by id) as reasons from filestore.journal_entries where status = 'failed'",
    ),
  ).toEqual({ reasons: ['nodes_name_taken', 'nodes_stale'] });
  expect(await service.list('letters')).toEqual(['taken.txt']);
});
