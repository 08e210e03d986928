import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import {
  beginCommand,
  beginWork,
  createNode,
  deleteNode,
  directoryTotals,
  ensureDirectory,
  finishCommand,
  listDirectory,
  moveNode,
  restoreNode,
  type SqlClient,
} from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);
let client: Client;

beforeAll(async () => {
  client = await connectAs('service');
  // A mount is a plain row.
  await client.query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
  );
});

/** A small service. Its only own SQL begins and ends transactions. */
const service = {
  upload: (path: string, name: string, size: bigint) =>
    journalled('upload', { path, name }, async () => {
      const directory = await ensureDirectory(client, { mountKey: 'media', path });
      return createNode(client, {
        parentId: directory.id,
        name,
        sizeBytes: size,
        metadata: { tags: ['new'] },
      });
    }),
  rename: (nodeId: string, newName: string, expectedVersion: number) =>
    journalled('rename', { nodeId, newName }, () => moveNode(client, { nodeId, newName, expectedVersion })),
  remove: (nodeId: string) =>
    journalled('remove', { nodeId }, () => deleteNode(client, { nodeId, recursive: true })),
  undelete: (nodeId: string) =>
    journalled('undelete', { nodeId }, () => restoreNode(client, { nodeId, withTree: true })),
  async list(path: string) {
    const directory = await ensureDirectory(client, { mountKey: 'media', path });
    const nodes = await listDirectory(client, { directoryId: directory.id, pageSize: 100 });
    return nodes.map(({ name }) => name);
  },
  async totals(path: string) {
    const { id: nodeId } = await ensureDirectory(client, { mountKey: 'media', path });
    const totals = await directoryTotals(client, { nodeId });
    return [totals?.size_bytes, totals?.file_count];
  },
};

/** Runs work in a transaction and records the outcome: success in the same transaction, failure after it rolled back. */
async function journalled<T extends { readonly id: string }>(
  command: string,
  parameters: Record<string, string>,
  work: (client: SqlClient) => Promise<T>,
) {
  const { entry } = await beginCommand(client, { command, parameters, principal: 'ada' });
  try {
    await client.query('begin');
    await beginWork(client, { entryId: entry.id });
    const node = await work(client);
    const ended = await finishCommand(client, {
      entryId: entry.id,
      status: 'succeeded',
      affectedNodeIds: [node.id],
    });
    await client.query('commit');
    return { node, entry: ended };
  } catch (error) {
    await client.query('rollback');
    const { code = '' } = error as { readonly code?: string };
    const ended = await finishCommand(client, { entryId: entry.id, status: 'failed', error: { code } });
    return { node: undefined, entry: ended };
  }
}

test('a service with only typed calls uploads, lists, renames, deletes, restores, and writes its journal', async () => {
  const { node, entry } = await service.upload('scans/2026', 'page.png', 2048n);
  expect(node).toMatchObject({ path: 'scans/2026/page.png', metadata: { tags: ['new'] } });
  expect(entry).toMatchObject({ status: 'succeeded', affected_node_ids: [node?.id], error: null });
  await service.upload('scans/2026', 'back.png', 1024n);
  expect(await service.list('scans/2026')).toEqual(['back.png', 'page.png']);
  expect(await service.totals('scans')).toEqual(['3072', '2']);

  const renamed = await service.rename(node?.id ?? '', 'front.png', 1);
  expect(renamed.node).toMatchObject({ path: 'scans/2026/front.png', version: 2 });
  expect(await service.list('scans/2026')).toEqual(['back.png', 'front.png']);

  const directory = await ensureDirectory(client, { mountKey: 'media', path: 'scans/2026' });
  expect((await service.remove(directory.id)).node).toMatchObject({ state: 'deleted', live: false });
  expect(await service.list('scans')).toEqual([]);
  expect(await service.totals('scans')).toEqual(['0', '0']);

  expect((await service.undelete(directory.id)).node).toMatchObject({ state: 'active', live: true });
  expect(await service.list('scans/2026')).toEqual(['back.png', 'front.png']);
  expect(await service.totals('scans')).toEqual(['3072', '2']);
});

test('a refused command of the service leaves a failed entry and no node', async () => {
  await service.upload('letters', 'taken.txt', 1n);
  const refused = await service.upload('letters', 'taken.txt', 2n);
  expect(refused).toMatchObject({ node: undefined, entry: { status: 'failed', error: { code: 'FS409' } } });
  const stale = await service.rename(
    (await ensureDirectory(client, { mountKey: 'media', path: 'letters' })).id,
    'post',
    7,
  );
  expect(stale.entry).toMatchObject({ status: 'failed', error: { code: 'FS409' } });
  expect(await service.list('letters')).toEqual(['taken.txt']);
});
