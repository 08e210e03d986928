import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { wrongTotals } from '../support/rows/directory-totals.ts';
import { createChain, createMount, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf, livePaths, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let mount: Mount;
let other: Mount;
let first: Client;
let second: Client;
/** A tree to copy, s/x/y, and a place for the copy, t/u. */
let [source, inner, deep]: [string, string, string] = ['', '', ''];
let target: string;

const COPY = 'select * from filestore.copy_tree($1, $2, $3)';
const CREATE = 'select * from filestore.create_nodes($1)';

beforeEach(async () => {
  [mount, other] = [await createMount(database()), await createMount(database())];
  [first, second] = [await connectAs('service'), await connectAs('service')];
  [source, inner, deep] = (await createChain(first, mount, 's', 'x', 'y')) as [string, string, string];
  [, target = ''] = await createChain(first, other, 't', 'u');
});

async function expectSound(): Promise<void> {
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  for (const { id } of [mount, other]) {
    const key = await keyOf(database(), id);
    expect(await database().query('select * from filestore.audit_rollups($1)', [key])).toEqual([]);
  }
  expect(await wrongTotals(database())).toEqual([]);
}

describe('copies and batches', () => {
  test('keep every total exact and do not deadlock during moves, deletes, restores, creates and folds', async () => {
    const clients: Client[] = [];
    while (clients.length < 7) clients.push(await connectAs('service'));
    const mounts = [mount, other];
    const random = <T>(values: readonly T[]): T => values[Math.floor(Math.random() * values.length)] as T;
    const failures: string[] = [];
    let turns = 0;
    const deadline = Date.now() + 4000;
    await Promise.all(
      clients.map(async (client) => {
        while (Date.now() < deadline) {
          const { rows } = await client.query(
            `select id, live from filestore.nodes
             where backend_mount_id = any($1) and kind = 'directory' and parent_id is not null and path !~ '(.*/){6}'
             order by random() limit 30`,
            [mounts.map(({ id }) => id)],
          );
          const live = rows.filter((row) => row.live).map(({ id }) => id);
          const any = () => random([...live, ...mounts.map(({ rootId }) => rootId)]);
          const name = random(['a', 'b', 'c', 'd', 'e', 'f']);
          const sql = writersOn(client);
          const work = random([
            () => (live.length < 25 ? client.query(COPY, [any(), any(), name]) : sql.create(any(), name)),
            () => client.query(CREATE, [batchOf(any(), any(), random(['x', 'y']))]),
            () => sql.move(random(live), { parent: any(), name }),
            () => sql.remove(random(live), { recursive: true }),
            () => sql.restore(random(rows).id, { withTree: true }),
            () => sql.create(any(), name),
            () => client.query('select filestore.fold_rollups(50)'),
          ]);
          await work()
            .then(() => {
              turns += 1;
            })
            .catch((error) => {
              if (!/^FS4/.test(error.code)) failures.push(`${error.code} ${error.message}`);
            });
        }
      }),
    );
    expect(failures).toEqual([]);
    expect(turns).toBeGreaterThan(50);
    await expectSound();
  });

  test('of a tree in which directories move are each consistent with one moment', async () => {
    await createChain(first, { ...mount, rootId: deep }, 'p', 'q');
    const { id: q } = await one(
      first,
      "select id from filestore.nodes where name = 'q' and backend_mount_id = $1",
      [mount.id],
    );
    const deadline = Date.now() + 1500;
    const moves = (async () => {
      for (let turn = 0; Date.now() < deadline; turn += 1) {
        await writersOn(first).move(q, { parent: turn % 2 === 0 ? source : inner });
        await writersOn(first).move(inner, { name: `x${turn}` });
      }
    })();
    const copies: string[] = [];
    for (let turn = 0; Date.now() < deadline && turn < 25; turn += 1)
      copies.push((await second.query(COPY, [source, target, `copy-${turn}`])).rows[0].path);
    await moves;
    const paths = await livePaths(database(), other.id);
    for (const path of copies) {
      const below = paths.filter((one) => one.startsWith(`${path}/`)).map((one) => one.split('/').at(-1));
      expect(below.map((name) => name?.charAt(0)).sort()).toEqual(['p', 'q', 'x', 'y']);
    }
    await expectSound();
  });
});

const batchOf = (one: string, other: string, name: string) =>
  JSON.stringify([
    { parent_id: one, name },
    { parent_id: other, name: `${name}2`, kind: 'directory' },
  ]);

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

test('a merge returns a live copy, or is refused as busy, while its target is deleted and created all the time', async () => {
  const { id: file } = await one(first, "select id from filestore.create_node($1, 'f', size_bytes => 1)", [
    source,
  ]);
  const place = [target, 'f'];
  let isOver = false;
  const changing = (async () => {
    while (!isOver) {
      await second.query('select filestore.create_node($1, $2)', place).catch(() => undefined);
      await second.query(
        'select filestore.delete_node(id) from filestore.nodes where parent_id = $1 and name = $2 and live',
        place,
      );
    }
  })();
  const outcomes = { copied: 0, busy: 0 };
  try {
    while (outcomes.copied < 300 || outcomes.busy < 30) {
      const merged = first.query(
        "select live, size_bytes from filestore.copy_tree($1, $2, on_conflict => 'overwrite')",
        [file, target],
      );
      const outcome = await merged.catch((error) => error);
      if (outcome.constraint === 'nodes_busy') outcomes.busy += 1;
      else {
        expect(outcome.rows).toEqual([{ live: true, size_bytes: '1' }]);
        outcomes.copied += 1;
      }
    }
  } finally {
    isOver = true;
    await changing;
  }
});
