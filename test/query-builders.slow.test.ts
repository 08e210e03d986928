import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForEachTest } from './support/databases/test-database.ts';
import { packedServiceForFile } from './support/packages/packed-service.ts';
import { createChain, createMount, createNode } from './support/rows/nodes.ts';

const database = databaseForEachTest();
const service = packedServiceForFile();
let env: Readonly<Record<string, string>>;

const document = readFileSync(join(PACKAGE_ROOT, 'docs', 'query-builders.md'), 'utf8');
const [kysely = '', useKysely = '', drizzle = '', useDrizzle = '', useRefusal = ''] = [
  ...document.matchAll(/^```ts\n([\s\S]*?)^```$/gm),
].map(([, code]) => code);

beforeAll(async () => {
  await service().useLibrary('kysely', '0.29.9');
  await service().useLibrary('drizzle-orm', '0.45.4');
});
beforeEach(async () => {
  const mount = await createMount(database());
  const [photos = ''] = await createChain(database(), mount, 'photos');
  const nodeId = await createNode(database(), mount, photos, 'sea.jpg');
  env = { FILESTORE_DATABASE_URL: database().url, MOUNT: mount.id, NODE: nodeId };
});

const BEGIN = `
  import { closePool, runCommand, withTransaction } from '@apphub/filestore';
  import { isRefusal, moveNode, refusalOf } from '@apphub/filestore/sql';
  const { MOUNT: mountId = '', NODE: nodeId = '' } = process.env;
  const respond = (status: number, text: string) => console.log(status, text);
`;

test('the adapter for Kysely has the types of rows, and works in transactions of both', async () => {
  const errors = await service().compile(`${kysely}${BEGIN}${useKysely}
    console.log(JSON.stringify(largest.map(({ path, size_bytes }) => [path, size_bytes])));
    await kysely().transaction().execute(async (transaction) => {
      await moveNode(callsOn(transaction), { nodeId, newName: 'undone' });
      throw new Error('undone');
    }).catch(() => undefined);
    await withTransaction(async (client) => {
      await kyselyOn(client).updateTable('filestore.nodes').set({ storage_class: 'undone' }).where('id', '=', nodeId).execute();
      throw new Error('undone');
    }).catch(() => undefined);
    const row = await kysely().selectFrom('filestore.nodes').selectAll().where('id', '=', nodeId).executeTakeFirstOrThrow();
    const typed: NodeRow = row;
    console.log(typed.path, typed.storage_class, typed.updated_at instanceof Date, typed.version);
    const error = await kysely().updateTable('filestore.nodes').set({ size_bytes: -1 }).where('id', '=', nodeId).execute()
      .catch((error: unknown) => error);
    console.log(isRefusal(error, 'nodes_size_check'), refusalOf(error)?.constraint);
    // @ts-expect-error the database counts versions
    kysely().updateTable('filestore.nodes').set({ version: 7 });
    // @ts-expect-error no such column
    kysely().selectFrom('filestore.nodes').select('size');
    await closePool();`);
  expect(errors).toBe('');
  expect((await service().runCompiled(env)).split('\n')).toEqual([
    '[["photos/sea.jpg","0"]]',
    'photos/again cold true 4',
    'true nodes_size_check',
  ]);
});

test('the adapter for Drizzle has the types of rows, and works in transactions of the package', async () => {
  const errors = await service().compile(
    `${drizzle}${BEGIN}
    import { getPool } from '@apphub/filestore';
    import { eq } from 'drizzle-orm';
    ${useDrizzle}
    await withTransaction(async (client) => {
      await drizzleOn(client).update(nodes).set({ storage_class: 'undone' }).where(eq(nodes.id, nodeId));
      throw new Error('undone');
    }).catch(() => undefined);
    const [row] = await drizzle({ client: getPool() }).select().from(nodes).where(eq(nodes.id, nodeId));
    if (row === undefined) throw new Error('no row');
    const typed: Pick<NodeRow, keyof typeof row> = row;
    console.log(typed.path, typed.storage_class, typed.updated_at.getTime() <= Date.now(), typed.version, typed.size_bytes, typed.checksum);
    const answer = (error: unknown) => {
      ${useRefusal}
      console.log(isRefusal(error));
    };
    await drizzle({ client: getPool() }).update(nodes).set({ size_bytes: '-1' }).where(eq(nodes.id, nodeId)).catch(answer);
    // @ts-expect-error a kind is one of two
    drizzle({ client: getPool() }).update(nodes).set({ kind: 'link' });
    await closePool();`,
    '--skipLibCheck',
  );
  expect(errors).toBe('');
  const [first, refused, ...others] = (await service().runCompiled(env)).split('\n');
  expect(first).toBe('photos/renamed cold true 3 0 null');
  expect(refused).toMatch(/^422 .*size/);
  expect(others).toEqual([]);
});
