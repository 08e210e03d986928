import type * as Calls from '../../src/sql/index.ts';
import type { Session } from './service-sessions.ts';

/** The flows of docs/service.md by typed calls, on a new mount. Throws if one returns anything else than it should. */
export async function serveByTypedCalls(
  calls: typeof Calls,
  session: Session,
  mountKey: string,
): Promise<void> {
  const client = session.single as Calls.SqlClient;
  const path = 'photos/2026/sea.jpg';
  const mountId = await register(session, mountKey);
  const directory = await calls.ensureDirectory(client, { mountKey, path: 'photos/2026' });
  await calls.writableMount(client, { mountKey });
  const command = {
    command: 'upload',
    parameters: { path },
    mountId,
    principal: 'ada',
    idempotencyKey: `request-${mountKey}`,
  };
  const { entry } = await calls.beginCommand(client, command);
  const file = await session.transact(async (transaction) => {
    const inside = transaction as Calls.SqlClient;
    await calls.beginWork(inside, { entryId: entry.id });
    const created = await calls.upsertFile(inside, {
      mountKey,
      path,
      sizeBytes: 4096,
      metadata: { camera: 'x100' },
      expectedVersion: 0,
    });
    await calls.finishCommand(inside, { entryId: entry.id, status: 'succeeded', primaryNodeId: created.id });
    return created;
  });
  const repeated = await calls.beginCommand(client, command);
  agree('repeated upload', [repeated.is_new, repeated.entry.primary_node_id], [false, file.id]);

  const sizeBytes = 8192;
  const written = await calls.upsertFile(client, { mountKey, path, sizeBytes, expectedVersion: 1 });
  agree('overwrite', [written.id, written.version], [file.id, 2]);
  const stale = await calls
    .upsertFile(client, { mountKey, path, sizeBytes: 1, expectedVersion: 1 })
    .catch((error: unknown) => {
      if (calls.isRefusal(error, 'nodes_stale')) return undefined;
      throw error;
    });
  agree('stale overwrite', stale, undefined);
  await calls.mergeMetadata(client, { nodeId: file.id, setValues: { rating: 5 }, unsetKeys: ['camera'] });
  const many = await calls.createNodes(client, {
    nodes: [
      { parent_id: directory.id, name: 'a.jpg', size_bytes: 10 },
      { parent_id: directory.id, name: 'b.jpg', size_bytes: 20 },
      { parent_id: directory.id, name: 'raw', kind: 'directory' },
    ],
  });
  agree('create many', many.length, 3);

  const photos = await calls.nodeByPath(client, { mountKey, path: 'photos' });
  const moved = await calls.moveNode(client, { nodeId: directory.id, newName: 'spring', expectedVersion: 1 });
  agree('move', moved.path, 'photos/spring');
  const newParentId = photos?.id ?? '';
  const copy = await calls.copyTree(client, { nodeId: directory.id, newParentId, newName: 'copy' });
  const deleted = await calls.deleteNode(client, { nodeId: copy.id, recursive: true });
  agree('delete', deleted.state, 'deleted');
  const restored = await calls.restoreNode(client, { nodeId: copy.id, withTree: true });
  agree('restore', restored.path, 'photos/copy');
  const page = await calls.listDirectory(client, { directoryId: directory.id, pageSize: 10 });
  agree('list', page.map(({ name }) => name).join(), 'a.jpg,b.jpg,raw,sea.jpg');
  const totals = await calls.listTotals(client, { nodeIds: [directory.id, copy.id] });
  agree('totals', totals.map((row) => row.size_bytes).join(), '8222,8222');
  await reconcile(calls, session, { mountKey, mountId, fileId: file.id, seenIds: [directory.id, copy.id] });
  const commands = await calls.listCommands(client, { mountId, pageSize: 20 });
  agree('journal', [commands.length, commands[0]?.status], [1, 'succeeded']);
  agree('commands of a node', (await calls.nodeCommands(client, { nodeId: file.id })).length, 1);
  await calls.findByChecksum(client, { checksum: `md5:${'0'.repeat(32)}` });
  await calls.foldRollups(client);
  await calls.expireCommands(client, { olderThan: '1 hour' });
}

async function register({ single }: Session, mountKey: string): Promise<string> {
  const { rows } = await single.query<{ readonly id: string }>(
    `insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', $2) returning id`,
    [mountKey, `/srv/${mountKey}`],
  );
  return rows[0]?.id ?? '';
}

interface Pass {
  readonly mountKey: string;
  readonly mountId: string;
  readonly fileId: string;
  readonly seenIds: readonly string[];
}

/** A pass over the backend that misses a file, which is found again afterwards. */
async function reconcile(
  calls: typeof Calls,
  session: Session,
  { mountKey, mountId, fileId, seenIds }: Pass,
): Promise<void> {
  const client = session.single as Calls.SqlClient;
  const { rows } = await session.single.query<{ readonly pass: Date }>('select clock_timestamp() as pass');
  const since = rows[0]?.pass ?? new Date(0);
  await calls.recordSightings(client, { nodeIds: seenIds, reconciledAt: since });
  const unseen = await calls.listUnseen(client, { mountKey, since, maxNodes: 1000 });
  agree('unseen', unseen.node_ids.includes(fileId), true);
  await session.transact(async (transaction) => {
    await calls.lockTree(transaction as Calls.SqlClient, { mountId, exclusive: false });
    await transaction.query("update filestore.nodes set state = 'missing' where id = $1", [fileId]);
  });
  const path = 'photos/spring/sea.jpg';
  const found = await calls.upsertFile(client, { mountKey, path, sizeBytes: 8192, lastSeenAt: since });
  agree('found again', [found.id, found.state, found.version], [fileId, 'active', 6]);
}

function agree(what: string, found: unknown, wanted: unknown): void {
  const [one, other] = [JSON.stringify(found), JSON.stringify(wanted)];
  if (one !== other) throw new Error(`${what}: ${one} instead of ${other}`);
}
