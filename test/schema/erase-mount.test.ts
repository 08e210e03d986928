import { describe, expect, test } from 'vitest';
import { databaseEmptiedAfterEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { mountsToErase } from '../support/rows/mounts-to-erase.ts';
import { createMount, foldAll, one } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

describe('erase_mount', () => {
  const database = databaseEmptiedAfterEachTest();
  const { erased, other, key, rowsOf, leftovers, journal, problems, deactivate, erase } =
    mountsToErase(database);

  test('is refused at another isolation level, before it marks the mount', async () => {
    await deactivate();
    const sql = await database().connect();
    await sql.query("set default_transaction_isolation = 'repeatable read'");
    await expect(erase(sql)).rejects.toMatchObject({ code: 'FS409', constraint: 'read_committed_check' });
    expect(
      await one(database(), 'select erasing_since from filestore.backend_mounts where id = $1', [
        erased().id,
      ]),
    ).toEqual({ erasing_since: null });
  });

  test('removes live nodes, tombstones, history, totals and sightings, and no row of another mount', async () => {
    const [rest, log] = [await rowsOf(other()), await journal()];
    await deactivate();
    await erase(database());
    expect(Object.values(await rowsOf(erased()))).toEqual(Array(6).fill('0 '));
    expect(await leftovers()).toEqual([]);
    expect(await rowsOf(other())).toEqual(rest);
    expect(await journal()).toEqual(log);
    expect(log.filter((entry) => entry.backend_mount_id === erased().id)).toHaveLength(1);
    expect(await problems()).toEqual([]);
  });

  test('refuses an active mount, an unknown mount, and a batch of 0', async () => {
    const before = await rowsOf(erased());
    await expect(erase(database())).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'backend_mounts_active',
      message: expect.stringContaining(`"${key()}"`),
      hint: expect.stringContaining('inactive'),
    });
    await deactivate();
    await expect(database().query("call filestore.erase_mount('nowhere')")).rejects.toMatchObject({
      code: 'FS404',
      message: expect.stringContaining('"nowhere"'),
    });
    await expect(erase(database(), 0)).rejects.toMatchObject({ code: 'FS422' });
    expect((await rowsOf(erased())).nodes).toBe(before.nodes);
  });

  test('leaves commands that have not ended', async () => {
    await deactivate();
    await database().query('select filestore.begin_erasing($1, 7)', [key()]);
    await expect(
      database().query('delete from filestore.journal_entries where backend_mount_id = $1', [erased().id]),
    ).rejects.toMatchObject({ code: 'FS409', constraint: 'journal_entries_open' });
  });

  test('that was stopped keeps the folds of other mounts going, and cannot be opened again', async () => {
    await deactivate();
    // What it does until its first commits.
    await database().query('select filestore.begin_erasing($1, 7)', [key()]);
    const { newest } = await one(database(), 'select max(id) as newest from filestore.nodes');
    for (let batch = 0; batch < 4; batch += 1) {
      await database().query('select filestore.erase_batch($1, 7, $2)', [erased().id, newest]);
    }
    await database().query(
      'update filestore.nodes set size_bytes = size_bytes + 1 where backend_mount_id = $1 and directory_path is null',
      [erased().id],
    );
    await foldAll(database());
    expect(
      await database().query('select from filestore.rollup_deltas where backend_mount_id = $1', [other().id]),
    ).toEqual([]);
    await expect(
      database().query("update filestore.backend_mounts set state = 'active' where id = $1", [erased().id]),
    ).rejects.toMatchObject({ code: 'FS409', constraint: 'backend_mounts_erasing' });
    await erase(database());
    expect(Object.values(await rowsOf(erased()))).toEqual(Array(6).fill('0 '));
    expect(await problems()).toEqual([]);
  });

  test('removes directories before their files and with pending totals, which no fold looks for', async () => {
    await deactivate();
    await database().query('select filestore.begin_erasing($1, 7)', [key()]);
    await database().query(
      "update filestore.nodes set size_bytes = 9 where backend_mount_id = $1 and path = 'z/f1'",
      [erased().id],
    );
    await database().query(
      "delete from filestore.nodes where backend_mount_id = $1 and (path = 'a/gone' or path >= 'z')",
      [erased().id],
    );
    await foldAll(database());
    await erase(database());
    expect(Object.values(await rowsOf(erased()))).toEqual(Array(6).fill('0 '));
  });

  test('an erased mount frees its key and its place', async () => {
    await deactivate();
    await erase(database(), 10_000);
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', '/data')",
      [key()],
    );
    expect(await problems()).toEqual([]);
  });
});

describe.each(['service', 'operator'] as const)('a role of level %s', (level) => {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);

  test('can neither erase a mount nor set erasing_since', async () => {
    const client = await connectAs(level);
    const mount = await createMount(client);
    const key = await keyOf(client, mount.id);
    const denied = { code: '42501' };
    await client.query("update filestore.backend_mounts set state = 'inactive' where id = $1", [mount.id]);
    await expect(client.query('call filestore.erase_mount($1)', [key])).rejects.toMatchObject(denied);
    await expect(
      client.query('update filestore.backend_mounts set erasing_since = now() where id = $1', [mount.id]),
    ).rejects.toMatchObject(denied);
    await expect(
      client.query(
        `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, erasing_since)
         values ('new', 'local', '/new', now())`,
      ),
    ).rejects.toMatchObject(denied);
  });
});
