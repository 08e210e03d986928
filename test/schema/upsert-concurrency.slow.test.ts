import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, foldAll, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

const UPSERT =
  'select * from filestore.upsert_file($1, $2, $3, expected_version => $4, last_seen_at => now())';
const MOVE = 'select * from filestore.move_node($1, null, $2)';
const REMOVE = 'select * from filestore.delete_node($1, null, $2)';

const clients: Client[] = [];
let mount: Mount;
let key: string;

beforeAll(async () => {
  while (clients.length < 10) clients.push(await connectAs('service'));
});

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
});

const upsert = (client: Client, path: string, size = 1, expected: number | null = null) =>
  one(client, UPSERT, [key, path, size, expected]);

async function problems() {
  return database().query('select * from filestore.check_integrity() where backend_mount_id = $1', [
    mount.id,
  ]);
}

describe('an upsert', () => {
  test('does not deadlock with moves, deletes, restores, folds and sightings of the directories above it', async () => {
    const deadline = Date.now() + 3000;
    const failures: string[] = [];
    const pick = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T;
    const paths = ['a/f', 'a/b/f', 'a/b/c/f', 'a/b/c/g'];
    const idAt = async (client: Client, path: string) =>
      (await client.query('select id from filestore.node_by_path($1, $2)', [key, path])).rows[0]?.id;
    const work = async (client: Client, turn: number) => {
      const id = await idAt(client, pick(['a', 'a/b', 'a/b/c', 'x', 'x/b', ...paths]));
      return pick([
        () => upsert(client, pick(paths), turn),
        () => upsert(client, pick(paths), turn),
        () => upsert(client, pick(paths), turn, pick([0, 1, 2])),
        () => client.query(MOVE, [id, pick(['a', 'b', 'c', 'x', 'f'])]),
        () => client.query(REMOVE, [id, true]),
        () => client.query('select filestore.fold_rollups()'),
        () => client.query('select filestore.record_sightings(array(select id from filestore.nodes))'),
        () => client.query('select filestore.merge_metadata($1, $2)', [id, `{"turn": ${turn}}`]),
      ])();
    };
    await Promise.all(
      clients.map(async (client) => {
        for (let turn = 1; Date.now() < deadline; turn += 1) {
          await work(client, turn).catch((error) => {
            if (!/^FS4/.test(error.code) || error.constraint === 'nodes_busy')
              failures.push(`${error.code} ${error.message}`);
          });
        }
      }),
    );
    expect(failures).toEqual([]);
    expect(await problems()).toEqual([]);
    const strays = await database().query(
      `select path from filestore.view_filestore_node_versions
       where backend_mount_id = $1 and version = 1 and kind = 'file' and path <> all ($2)`,
      [mount.id, paths],
    );
    expect(strays).toEqual([]);
    await foldAll(database());
    expect(await problems()).toEqual([]);
  });
});
