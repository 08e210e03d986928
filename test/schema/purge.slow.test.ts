import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { createMount, foldAll, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf, type Writers, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForEachTest();

let mount: Mount;
let key: string;
let writers: Writers;

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  writers = writersOn(database());
});

const PURGE = 'select filestore.purge_deleted($1, $2) as purged';

const purge = async (olderThan: string | null = '0', batch: number | null = 1000): Promise<number> =>
  (await one(database(), PURGE, [olderThan, batch])).purged;

/** The paths of all remaining nodes except the root, tombstones included. */
async function left(): Promise<readonly string[]> {
  const rows = await database().query(
    'select path from filestore.nodes where parent_id is not null order by path, id',
  );
  return rows.map(({ path }) => path);
}

/** Creates a directory with files. */
async function fill(path: string, files: number): Promise<string> {
  const { id } = await writers.ensure(key, path);
  await database().query(
    "insert into filestore.nodes (backend_mount_id, parent_id, name, kind) select $1, $2, 'f' || g, 'file' from generate_series(1, $3) g",
    [mount.id, id, files],
  );
  return id;
}

describe('purge_deleted', () => {
  test('finishes right after a mass delete, with statistics from before it', async () => {
    await database().query('alter table filestore.nodes set (autovacuum_enabled = off)');
    for (let directory = 0; directory < 50; directory += 1) await fill(`d/${directory}`, 1000);
    await writers.remove((await writers.ensure(key, 'd')).id, { recursive: true });
    // Every directory has pending deltas, and its files must be purged first.
    expect(await purge('0', 20_000)).toBe(20_000);
    await foldAll(database());
    expect([await purge('0', 20_000), await purge('0', 20_000), await purge('0', 20_000)]).toEqual([
      20_000, 10_051, 0,
    ]);
    expect(await left()).toEqual([]);
  });
});
