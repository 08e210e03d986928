import type { Client } from 'pg';
import { beforeAll, beforeEach, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  type Mount,
  one,
} from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let reader: Client;
let mount: Mount;
let key: string;
let directory: string;
/** Creates d/f1 to d/f5. */
let files: readonly string[];

beforeAll(async () => {
  reader = await connectAs('reader');
});

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
  directory = await createDirectory(database(), mount, mount.rootId, 'd');
  files = [];
  for (let number = 1; number <= 5; number += 1) {
    files = [...files, await createNode(database(), mount, directory, `f${number}`)];
  }
});

interface Part {
  readonly node_ids: readonly string[];
  readonly next_path: string | null;
}

async function part(
  mountKey: string | null,
  since: string | null,
  afterPath: string | null = '',
  maxNodes: number | null = 10_000,
): Promise<Part> {
  const row = await one(reader, 'select * from filestore.list_unseen($1, $2, $3, $4)', [
    mountKey,
    since,
    afterPath,
    maxNodes,
  ]);
  return row as Part;
}

/** Returns the moment at which a pass begins: later than all earlier changes, and earlier than all later ones. */
async function beginPass(): Promise<string> {
  const { moment } = await one(
    reader,
    "select pg_sleep(0.002), date_trunc('milliseconds', clock_timestamp())::text as moment, pg_sleep(0.002)",
  );
  return moment;
}

const see = (...ids: readonly (string | undefined)[]) =>
  database().query('select filestore.record_sightings($1)', [ids]);

/** Calls list_unseen until the end of the mount. */
async function walk(since: string, size: number): Promise<readonly string[]> {
  const found: string[] = [];
  for (let path: string | null = ''; path !== null; ) {
    const { node_ids, next_path }: Part = await part(key, since, path, size);
    found.push(...node_ids);
    path = next_path;
  }
  return found;
}

test.each([1, 2, 3, 6, 100])(
  'calls of %i nodes each find all nodes that a pass did not see, without the root',
  async (size) => {
    await see(files[3]);
    const since = await beginPass();
    expect(await walk(since, size)).toEqual([directory, ...files]);
    await see(directory, files[1], files[2]);
    expect(await walk(since, size)).toEqual([files[0], files[3], files[4]]);
    await see(files[0], files[3], files[4]);
    expect(await walk(since, size)).toEqual([]);
  },
);

test('one call reads at most max_nodes nodes, also when all of them were seen', async () => {
  const since = await beginPass();
  await see(directory, ...files);
  expect(await part(key, since, '', 2)).toEqual({ node_ids: [], next_path: 'd/f1' });
  expect(await part(key, since, 'd/f4', 2)).toEqual({ node_ids: [], next_path: null });
});

test('leaves out nodes that were created or deleted since, and nodes of other mounts', async () => {
  const since = await beginPass();
  await createNode(database(), mount, directory, 'new');
  await deleteNode(database(), files[0] ?? '');
  const other = await createMount(database());
  await createNode(database(), other, other.rootId, 'f');
  expect(await walk(since, 3)).toEqual([directory, ...files.slice(1)]);
  expect(await part(await keyOf(database(), other.id), since)).toEqual({ node_ids: [], next_path: null });
});

test('a reconciler can mark the nodes as missing while others create and delete, and skips none', async () => {
  const since = await beginPass();
  await see(directory, files[1]);
  const found: string[] = [];
  for (let path: string | null = '', turn = 0; path !== null; turn += 1) {
    const { node_ids, next_path }: Part = await part(key, since, path, 2);
    await database().query("update filestore.nodes set state = 'missing' where id = any($1)", [node_ids]);
    await createNode(database(), mount, directory, `a${turn}`);
    await createNode(database(), mount, directory, `f1-${turn}`);
    found.push(...node_ids);
    path = next_path;
  }
  expect(found).toEqual([files[0], ...files.slice(2)]);
});

test('begins after any path, with or without a node there', async () => {
  const since = await beginPass();
  expect((await part(key, since, 'd/f2!')).node_ids).toEqual(files.slice(2));
  expect((await part(key, since, null)).node_ids).toEqual([directory, ...files]);
  expect(await part(key, since, 'zzz')).toEqual({ node_ids: [], next_path: null });
});

test.each([0, -1, 100_001, 2_147_483_648])('refuses max_nodes %s', async (size) => {
  await expect(part(key, 'now', '', size)).rejects.toMatchObject(
    refusal('FS422', `max_nodes cannot be ${size}`),
  );
});

test.each(["timestamptz 'infinity'", "clock_timestamp() + interval '1 second'"])(
  'refuses a pass that begins at %s',
  async (moment) => {
    const { since } = await one(database(), `select (${moment})::text as since`);
    await expect(part(key, since)).rejects.toMatchObject({
      ...refusal('FS422', 'in the future'),
      constraint: 'node_sightings_moment_check',
    });
  },
);

test('refuses null for max_nodes or since, and an unknown mount', async () => {
  await expect(part(key, 'now', '', null)).rejects.toMatchObject(
    refusal('FS422', 'max_nodes cannot be null'),
  );
  await expect(part(key, null)).rejects.toMatchObject(refusal('FS422', 'since is null'));
  await expect(part('nowhere', 'now')).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
  await expect(part(null, 'now')).rejects.toMatchObject(refusal('FS404', 'mount'));
});
