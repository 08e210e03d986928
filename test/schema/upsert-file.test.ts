import type { Client, QueryResultRow } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';
import { keyOf, livePaths, type Writers, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

const HEX = '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08';
const CONTENT = {
  size_bytes: 5,
  checksum: HEX.toUpperCase(),
  content_hash: '"etag"',
  storage_class: 'COLD',
  metadata: { tag: 'x' },
  last_modified_at: new Date('2020-01-02T00:00:00Z'),
  link_target: 'elsewhere',
};
const STORED = { ...CONTENT, size_bytes: '5', checksum: `sha256:${HEX}` };
const EMPTY = {
  size_bytes: '0',
  checksum: null,
  content_hash: null,
  storage_class: null,
  last_modified_at: null,
  link_target: null,
};

let service: Client;
let writers: Writers;
let mount: Mount;
let key: string;

beforeAll(async () => {
  service = await connectAs('service');
  writers = writersOn(service);
});

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
});

/** Calls a function with arguments by name, as role service. */
function call(name: string, values: Readonly<Record<string, unknown>>): Promise<QueryResultRow> {
  const given = Object.keys(values).map((argument, index) => `${argument} => $${index + 1}`);
  return one(service, `select * from filestore.${name}(${given.join(', ')})`, Object.values(values));
}

const upsert = (path: string | null, values: Readonly<Record<string, unknown>> = {}, mountKey = key) =>
  call('upsert_file', { mount_key: mountKey, path, ...values });
const read = (id: string) => one(service, 'select * from filestore.nodes where id = $1', [id]);
const sightingsOf = (id: string) =>
  database().query('select last_seen_at from filestore.node_sightings where node_id = $1', [id]);

describe('upsert_file', () => {
  test('creates a file with all given columns, and the directories above it', async () => {
    const file = await upsert('/a//b/./f', CONTENT);
    expect(file).toMatchObject({
      ...STORED,
      backend_mount_id: mount.id,
      path: 'a/b/f',
      kind: 'file',
      state: 'active',
      version: 1,
    });
    expect(await read(file.id)).toEqual(file);
    expect(await livePaths(database(), mount.id)).toEqual(['a', 'a/b', 'a/b/f']);
  });

  test('creates an empty file in the root when nothing else is given', async () => {
    expect(await upsert('f')).toMatchObject({ ...EMPTY, path: 'f', metadata: {}, parent_id: mount.rootId });
  });

  test('uses 0 for a size of null, in a new file and in an existing one', async () => {
    for (const version of [1, 1])
      expect(await upsert('f', { size_bytes: null })).toMatchObject({ size_bytes: '0', version });
    expect(await upsert('f', { size_bytes: 3 })).toMatchObject({ version: 2 });
    expect(await upsert('f', { size_bytes: null })).toMatchObject({ size_bytes: '0', version: 3 });
  });

  test('replaces all content, and keeps metadata and the id', async () => {
    const { id } = await upsert('a/f', CONTENT);
    expect(await upsert('a/f')).toMatchObject({ ...EMPTY, id, version: 2, metadata: { tag: 'x' } });
    expect(await upsert('a/f', { ...CONTENT, metadata: {} })).toMatchObject({
      ...STORED,
      id,
      version: 3,
      metadata: {},
    });
  });

  test('keeps a column that a later migration adds', async () => {
    const { id } = await upsert('f');
    await database().query('alter table filestore.nodes add column kept_by_upsert text');
    await database().query('alter table filestore.snapshots add column kept_by_upsert text');
    await database().query("update filestore.nodes set kept_by_upsert = 'x' where id = $1", [id]);
    expect(await upsert('f', { size_bytes: 7 })).toMatchObject({ kept_by_upsert: 'x', version: 3 });
    await database().query('alter table filestore.nodes drop column kept_by_upsert');
    await database().query('alter table filestore.snapshots drop column kept_by_upsert');
  });

  test('adds no version when nothing changes', async () => {
    const file = await upsert('f', CONTENT);
    expect(await upsert('f', CONTENT)).toEqual(file);
  });

  test.each(['missing', 'inconsistent'])('sets the state of a file from %s to active', async (state) => {
    const { id } = await upsert('f');
    await service.query('update filestore.nodes set state = $2 where id = $1', [id, state]);
    expect(await upsert('f')).toMatchObject({ id, state: 'active', version: 3 });
  });

  test('creates a new node where a file was deleted', async () => {
    const { id } = await upsert('f');
    await writers.remove(id);
    const file = await upsert('f');
    expect(file).toMatchObject({ version: 1, live: true });
    expect(file.id).not.toBe(id);
  });

  test('with expected_version 0 only creates, and with another version only overwrites that version', async () => {
    const stale = (names: string) => ({ ...refusal('FS409', names), constraint: 'nodes_stale' });
    await expect(upsert('a/f', { expected_version: 1 })).rejects.toMatchObject(stale('"a/f"'));
    expect(await livePaths(database(), mount.id)).toEqual([]);
    expect(await upsert('a/f', { expected_version: 0 })).toMatchObject({ version: 1 });
    await expect(upsert('a/f', { expected_version: 0 })).rejects.toMatchObject(stale('"a/f"'));
    expect(await upsert('a/f', { expected_version: 1, size_bytes: 7 })).toMatchObject({ version: 2 });
    await expect(upsert('a/f', { expected_version: 1, size_bytes: 8 })).rejects.toMatchObject(
      stale('version 2, not 1'),
    );
    await expect(upsert('g', { expected_version: -1 })).rejects.toMatchObject(stale('"g"'));
  });

  test('with expected_id overwrites only that node, not one that has replaced it', async () => {
    const stale = (names: string) => ({ ...refusal('FS409', names), constraint: 'nodes_stale' });
    const { id } = await upsert('f');
    expect(await upsert('f', { expected_id: id, size_bytes: 7 })).toMatchObject({ id, version: 2 });
    await writers.remove(id);
    await expect(upsert('f', { expected_id: id })).rejects.toMatchObject(stale('does not exist'));
    const other = await upsert('f');
    await expect(upsert('f', { expected_id: id, expected_version: 1 })).rejects.toMatchObject(
      stale(`is node ${other.id}, but node ${id} is expected`),
    );
  });

  test('refuses a directory at the path, and a file above it', async () => {
    await upsert('d/f');
    await expect(upsert('d')).rejects.toMatchObject({
      ...refusal('FS409', '"d"'),
      constraint: 'nodes_directory_in_the_way',
    });
    await expect(upsert('d', { expected_version: 0 })).rejects.toMatchObject(refusal('FS409', '"d"'));
    await expect(upsert('d/f/g/h')).rejects.toMatchObject({
      ...refusal('FS409', '"d/f"'),
      constraint: 'nodes_file_in_the_way',
    });
    expect(await livePaths(database(), mount.id)).toEqual(['d', 'd/f']);
  });

  test.each([null, '', '/', '//.', './'])('refuses the path %j', async (path) => {
    await expect(upsert(path)).rejects.toMatchObject({
      ...refusal('FS422', 'path'),
      constraint: 'nodes_path_check',
    });
  });

  test('refuses an unknown mount, an invalid path and an invalid checksum, and creates nothing', async () => {
    await expect(upsert('f', {}, 'nowhere')).rejects.toMatchObject(refusal('FS404', '"nowhere"'));
    await expect(upsert('a/../f')).rejects.toMatchObject(refusal('FS422', '"a/../f"'));
    await expect(upsert(`a/${'n'.repeat(256)}`)).rejects.toMatchObject(refusal('FS422', 'nnn'));
    await expect(upsert('a/f', { checksum: 'sha256:9f86d081' })).rejects.toMatchObject(
      refusal('FS422', 'sha256'),
    );
    await expect(upsert('a/f', { size_bytes: -1 })).rejects.toMatchObject({ constraint: 'nodes_size_check' });
    await expect(upsert('a/f', { metadata: '[]' })).rejects.toMatchObject({
      constraint: 'nodes_metadata_check',
    });
    expect(await livePaths(database(), mount.id)).toEqual([]);
  });
});

describe('a sighting that is given with a write', () => {
  const seen = new Date('2024-05-05T05:05:05.005Z');
  const later = new Date('2024-05-06T05:05:05.005Z');

  test.each(['create_node', 'upsert_file'])('is recorded by %s, and adds no version', async (name) => {
    const place =
      name === 'create_node' ? { parent_id: mount.rootId, name: 'f' } : { mount_key: key, path: 'f' };
    const file = await call(name, { ...place, last_seen_at: seen });
    expect(file).toMatchObject({ version: 1 });
    expect(await sightingsOf(file.id)).toEqual([{ last_seen_at: seen }]);
  });

  test('is recorded with an overwrite, and never goes back', async () => {
    const { id } = await upsert('f', { last_seen_at: later });
    expect(await upsert('f', { last_seen_at: seen })).toMatchObject({ version: 1 });
    expect(await sightingsOf(id)).toEqual([{ last_seen_at: later }]);
    await upsert('f');
    expect(await sightingsOf(id)).toEqual([{ last_seen_at: later }]);
  });

  test('is not recorded when none is given', async () => {
    expect(await sightingsOf((await upsert('f')).id)).toEqual([]);
    expect(await sightingsOf((await writers.create(mount.rootId, 'g')).id)).toEqual([]);
  });

  test('in the future is refused, and nothing is written', async () => {
    const last_seen_at = new Date(Date.now() + 3_600_000);
    const refused = { ...refusal('FS422', 'sighting'), constraint: 'node_sightings_moment_check' };
    await expect(upsert('f', { last_seen_at })).rejects.toMatchObject(refused);
    await expect(
      call('create_node', { parent_id: mount.rootId, name: 'f', last_seen_at }),
    ).rejects.toMatchObject(refused);
    expect(await livePaths(database(), mount.id)).toEqual([]);
  });
});

describe('create_node', () => {
  test('creates a symbolic link', async () => {
    const place = { parent_id: mount.rootId, name: 'link' };
    expect(await call('create_node', { ...place, link_target: '../f' })).toMatchObject({
      kind: 'file',
      link_target: '../f',
    });
  });

  test('names the valid kinds when it is given another one', async () => {
    await expect(
      call('create_node', { parent_id: mount.rootId, name: 'f', kind: 'socket' }),
    ).rejects.toMatchObject({ code: '23514', constraint: 'node_kind_check' });
  });
});
