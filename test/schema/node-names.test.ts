import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf, writersOn } from '../support/rows/writer-functions.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let key: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
});

const idAt = async (path: string) =>
  (await one(service, 'select id from filestore.node_by_path($1, $2)', [key, path])).id;

// A disk can hold both names, so the catalogue can too.
describe('names that look alike are different nodes', () => {
  test.each([
    ['composed and decomposed', 'Gr\u00fc\u00dfe', 'Gru\u0308\u00dfe'],
    ['a ligature and its letters', 'of\ufb01ce', 'office'],
    ['full width and half width', '\uff21', 'A'],
    ['the ohm sign and omega', '\u2126', '\u03a9'],
    ['with and without a zero-width space', 'a\u200bb', 'ab'],
    ['Latin and Cyrillic', 'a', '\u0430'],
  ])('%s', async (_, one, other) => {
    const writers = writersOn(service);
    const first = await writers.create(mount.rootId, one, 'directory');
    const second = await writers.create(mount.rootId, other, 'directory');
    expect(second.id).not.toBe(first.id);
    expect([await idAt(one), await idAt(other)]).toEqual([first.id, second.id]);
    expect((await writers.ensure(key, `${one}/x`)).parent_id).toBe(first.id);
    expect((await writers.ensure(key, `${other}/x`)).parent_id).toBe(second.id);
    await expect(writers.move(first.id, { name: other })).rejects.toMatchObject({ code: 'FS409' });
  });
});

describe('a name is kept byte for byte and found again', () => {
  test.each([
    ['zero-width space', 'a\u200bb'],
    ['zero-width joiner', '\u{1f468}\u200d\u{1f4bb}'],
    ['byte order mark', '\ufeffa'],
    ['right-to-left override', 'invoice\u202efdp.exe'],
    ['bidirectional isolates', '\u2067abc\u2069'],
    ['only zero-width characters', '\u200b\u200c'],
    ['soft hyphen', 'a\u00adb'],
    ['line and paragraph separators', 'a\u2028b\u2029c'],
    ['unassigned and private characters', '\ue000\u{10ffff}'],
    ['combining marks alone', '\u0301\u0302'],
  ])('%s', async (_, name) => {
    const { id } = await writersOn(service).create(mount.rootId, name);
    const stored = await one(
      service,
      "select encode(convert_to(name, 'UTF8'), 'hex') as bytes, path from filestore.nodes where id = $1",
      [id],
    );
    expect(stored).toEqual({ bytes: Buffer.from(name).toString('hex'), path: name });
    expect(await idAt(name)).toBe(id);
    const { rows } = await service.query('select name from filestore.list_directory($1)', [mount.rootId]);
    expect(rows).toEqual([{ name }]);
  });
});
