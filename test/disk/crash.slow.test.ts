import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { insertMount, one } from '../support/rows/nodes.ts';
import { applyOnce, beginScan, file, readStates, recordEntries, scan } from '../support/rows/scans.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

let server: OwnServer;

beforeAll(async () => {
  server = await startOwnServer();
  await withServer('postgres', (client) =>
    client.query("create database crash encoding 'UTF8' template template0"),
  );
  await runMigrations({ connection: connectionTo(databaseUrl(server.url, 'crash')) });
});
afterAll(() => server?.stop());

async function withServer<T>(name: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(databaseUrl(server.url, name));
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

const files = Array.from({ length: 30 }, (_, index) => file(`f${index}`, `${index}`));

test.each(['while it records', 'while it is applied'])(
  'a scan whose server crashes %s is lost, and marks nothing',
  async (when) => {
    const key = when.replaceAll(' ', '-');
    const id = await withServer('crash', async (client) => {
      await insertMount(client, { mount_key: key, backend_kind: 'local', root_path: `/srv/${key}` });
      await scan(client, key, files);
      const begun = await beginScan(client, key);
      await recordEntries(client, begun.id, files.slice(1));
      if (when === 'while it is applied') await applyOnce(client, begun.id);
      return begun.id as string;
    });
    await server.restart('immediate');

    await withServer('crash', async (client) => {
      const lost = { code: 'FS409', constraint: 'scans_lost' };
      await expect(applyOnce(client, id)).rejects.toMatchObject(lost);
      if (when === 'while it records') {
        await expect(recordEntries(client, id, files)).rejects.toMatchObject(lost);
      }
      await client.query('select filestore.cancel_scan($1)', [id]);
      expect(await readStates(client, key)).toEqual(files.map(({ path }) => `${path} active`).sort());
      expect(await scan(client, key, files.slice(1))).toMatchObject({ missing: '1', seen: '29' });
      expect((await one(client, 'select count(*) from filestore.check_integrity()')).count).toBe('0');
    });
  },
);
