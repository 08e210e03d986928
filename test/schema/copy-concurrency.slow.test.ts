import type { Client } from 'pg';
import { beforeEach, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createChain, createMount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let first: Client;
let second: Client;
/** A directory to copy from, and one to copy to. */
let source: string;
let target: string;

beforeEach(async () => {
  const mount = await createMount(database());
  [first, second] = [await connectAs('service'), await connectAs('service')];
  [source, target] = (await createChain(first, mount, 's', 't')) as [string, string];
});

test('a merge copies the version that is expected, or is refused, while the source changes all the time', async () => {
  const { id: file } = await one(first, "select id from filestore.create_node($1, 'f', size_bytes => 1)", [
    source,
  ]);
  await one(first, "select id from filestore.create_node($1, 'f')", [target]);
  let isOver = false;
  const changing = (async () => {
    while (!isOver)
      await second.query('update filestore.nodes set size_bytes = version + 1 where id = $1', [file]);
  })();
  const outcomes = { copied: 0, stale: 0 };
  try {
    while (outcomes.copied < 300 || outcomes.stale < 30) {
      const { version } = await one(first, 'select version from filestore.nodes where id = $1', [file]);
      const values = [file, target, version];
      const merged = first.query(
        "select size_bytes from filestore.copy_tree($1, $2, expected_version => $3, on_conflict => 'overwrite')",
        values,
      );
      const outcome = await merged.catch((error) => error);
      if (outcome.constraint === 'nodes_stale') outcomes.stale += 1;
      else {
        expect(outcome.rows).toEqual([{ size_bytes: String(version) }]);
        outcomes.copied += 1;
      }
    }
  } finally {
    isOver = true;
    await changing;
  }
});
