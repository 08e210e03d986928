import type { Client } from 'pg';
import { describe, expect, test } from 'vitest';
import { insertMount, one } from '../support/rows/nodes.ts';
import { diskForEachTest } from '../support/rows/scanned-disks.ts';
import { directory, file, scan } from '../support/rows/scans.ts';

let service: Client;
let key: string;
let mountId: string;
const { database, everything, tree, onlyIn, ids, states } = diskForEachTest((disk) => {
  ({ service, key, mountId } = disk);
});

describe('a scan of a subtree', () => {
  test('touches nothing outside of it, also not beside it', async () => {
    await everything(file('a/x', '1'), file('a/y', '2'), file('a-b/x', '3'), file('b', '4'));
    expect(await tree('a', file('x', '1', 5), file('new', '5'))).toMatchObject({
      changed: '1',
      created: '1',
      missing: '1',
      seen: '2',
    });
    expect(await states()).toEqual([
      'a active',
      'a-b active',
      'a-b/x active',
      'a/new active',
      'a/x active',
      'a/y missing',
      'b active',
    ]);
  });

  test('creates the directory that it scans', async () => {
    await tree('p/q', file('x', '1'));
    expect(await states()).toEqual(['p active', 'p/q active', 'p/q/x active']);
  });

  test('records names below one directory, as a walk lists them', async () => {
    const { id } = await one(service, "select id from filestore.begin_scan($1, 'top')", [key]);
    await service.query("select filestore.record_entries($1, $2, 'd/e')", [
      id,
      JSON.stringify([file('x'), directory('f')]),
    ]);
    await service.query("select filestore.record_entries($1, $2, 'd/e/f')", [
      id,
      JSON.stringify([file('y')]),
    ]);
    for (let state = ''; state !== 'finished'; ) {
      ({ state } = await one(service, 'select state from filestore.apply_scan($1)', [id]));
    }
    expect(Object.keys(await ids()).sort()).toEqual([
      'top',
      'top/d',
      'top/d/e',
      'top/d/e/f',
      'top/d/e/f/y',
      'top/d/e/x',
    ]);
  });
});

describe('a node that moves out of the scanned subtree', () => {
  test('is missing, and a later scan of the other part moves it there', async () => {
    await everything(
      directory('a', '1'),
      directory('a/d', '2'),
      file('a/d/x', '3'),
      file('a/f', '4'),
      directory('b', '5'),
    );
    const before = await ids();
    await tree('a');
    expect(await states()).toEqual(['a active', 'a/d missing', 'a/d/x missing', 'a/f missing', 'b active']);
    expect(await tree('b', directory('d2', '2'), file('d2/x', '3'), file('d2/f', '4'))).toMatchObject({
      moved: '2',
      found: '1',
      created: '0',
    });
    expect(await ids()).toEqual({
      a: before.a,
      b: before.b,
      'b/d2': before['a/d'],
      'b/d2/x': before['a/d/x'],
      'b/d2/f': before['a/f'],
    });
    expect((await states()).filter((line) => !line.endsWith(' active'))).toEqual([]);
  });

  test('is another node as long as the part that it left was not scanned: it may have two names', async () => {
    await everything(file('a/x', '1'), directory('b', '5'));
    const before = await ids();
    expect(await tree('b', file('x', '1'))).toMatchObject({ created: '1', moved: '0' });
    expect((await ids())['a/x']).toBe(before['a/x']);
    await everything(directory('a', '1'), directory('a/d', '2'), directory('b', '5'));
    const known = await ids();
    expect(await tree('b', directory('d', '2'))).toMatchObject({ created: '1', moved: '0' });
    expect((await ids())['a/d']).toBe(known['a/d']);
  });

  test('is another node when it was purged in the meantime', async () => {
    await everything(file('a/x', '1'), directory('b', '5'));
    const before = await ids();
    await tree('a');
    await service.query('select filestore.delete_node($1)', [before['a/x']]);
    expect(await tree('b', file('x', '1'))).toMatchObject({ created: '1', moved: '0' });
  });

  test('is not moved when a missing node of another mount has the same identity', async () => {
    const otherKey = `other-than-${key}`;
    await insertMount(service, { mount_key: otherKey, backend_kind: 'local', root_path: `/srv/${otherKey}` });
    await scan(service, otherKey, [file('x', '1')]);
    await scan(service, otherKey, []);
    expect(await everything(file('y', '1'))).toMatchObject({ created: '1', moved: '0' });
  });
});

describe('a scan of one directory', () => {
  test('covers the nodes in it, and not what is below them', async () => {
    await everything(
      file('d/x', '1'),
      file('d/y', '2'),
      directory('d/e', '3'),
      file('d/e/z', '4'),
      file('other', '5'),
    );
    expect(await onlyIn('d', file('x', '1', 5), directory('e', '3'))).toMatchObject({
      changed: '1',
      missing: '1',
      seen: '2',
    });
    expect(await states()).toEqual([
      'd active',
      'd/e active',
      'd/e/z active',
      'd/x active',
      'd/y missing',
      'other active',
    ]);
  });

  test('follows a renamed directory in it, with everything below', async () => {
    await everything(directory('d/e', '3'), file('d/e/z', '4'));
    const before = await ids();
    expect(await onlyIn('d', directory('f', '3'))).toMatchObject({ moved: '1', missing: '0' });
    expect(await ids()).toEqual({ d: before.d, 'd/f': before['d/e'], 'd/f/z': before['d/e/z'] });
    expect((await states()).filter((line) => !line.endsWith(' active'))).toEqual([]);
  });

  test('takes what is below a directory that is gone for missing too', async () => {
    await everything(directory('d/e', '3'), file('d/e/f/z', '4'), file('d/x', '5'));
    expect(await onlyIn('d', file('x', '5'))).toMatchObject({ missing: '3' });
    expect(await states()).toEqual([
      'd active',
      'd/e missing',
      'd/e/f missing',
      'd/e/f/z missing',
      'd/x active',
    ]);
  });

  test('works in the root of a mount', async () => {
    await everything(file('x', '1'), file('d/y', '2'));
    expect(await onlyIn('', file('z', '1'), directory('d'))).toMatchObject({ moved: '1', missing: '0' });
  });

  test('refuses what is below', async () => {
    const { id } = await one(service, "select id from filestore.begin_scan($1, 'd', false)", [key]);
    for (const values of [
      [[file('a/b')], ''],
      [[file('a')], 'b'],
    ]) {
      await expect(
        service.query('select filestore.record_entries($1, $2, $3)', [
          id,
          JSON.stringify(values[0]),
          values[1],
        ]),
      ).rejects.toMatchObject({ code: 'FS422', constraint: 'scan_entries_path_check' });
    }
  });
});

test('a directory does not move when a path below it would become too long: its nodes move one by one', async () => {
  const deep = Array.from({ length: 12 }, () => 'x'.repeat(200)).join('/');
  await everything(directory('a', '1'), file(`a/${deep}`, '2'), file('a/y', '3'));
  const before = await ids();
  const name = 'n'.repeat(250);
  expect(await everything(directory(name, '1'), file(`${name}/y`, '3'))).toMatchObject({
    moved: '1',
    created: '1',
  });
  const after = await ids();
  expect(after[`${name}/y`]).toBe(before['a/y']);
  expect(await states()).toContain('a missing');
});

test('a directory moves as a whole, also when the paths below another one would become too long', async () => {
  const deep = Array.from({ length: 12 }, () => 'x'.repeat(200)).join('/');
  await everything(directory('a', '1'), file(`a/${deep}`, '2'), directory('b', '3'), file('b/y'));
  const before = await ids();
  const [longer, long] = ['m'.repeat(250), 'n'.repeat(250)];
  const found = await everything(directory(longer, '1'), directory(long, '3'), file(`${long}/y`));
  expect(found).toMatchObject({ moved: '1', created: '1' });
  const after = await ids();
  expect([after[long], after[`${long}/y`]]).toEqual([before.b, before['b/y']]);
});

describe('the journal', () => {
  test('has one entry for a scan, with the counts as its result and the nodes that it changed', async () => {
    await everything(file('a', '1'), file('b', '2'), file('c', '3'), file('same', '4'));
    const known = await ids();
    const { id } = await everything(file('a', '1', 9), file('d', '2'), file('new', '5'), file('same', '4'));
    const now = await ids();
    const entry = await one(
      service,
      'select * from filestore.journal_entries where backend_mount_id = $1 order by id desc limit 1',
      [mountId],
    );
    expect(entry).toMatchObject({
      command: 'scan',
      status: 'succeeded',
      principal: 'ada',
      parameters: { scan_id: Number(id), path: '', recursive: true },
      result: { created: 1, moved: 1, changed: 1, missing: 1, deleted: 0, seen: 4, entries: 4 },
    });
    expect([...entry.affected_node_ids].sort()).toEqual([known.a, known.b, known.c, now.new].sort());
    for (const node of entry.affected_node_ids) {
      const { rows } = await service.query('select id from filestore.node_commands($1)', [node]);
      expect(rows[0]).toEqual({ id: entry.id });
    }
    const { rows: history } = await service.query(
      'select distinct superseded_by_journal_id as id from filestore.snapshots where backend_mount_id = $1',
      [mountId],
    );
    expect(history).toEqual([{ id: entry.id }]);
  });

  test('gets a second entry when the first one was expired, and both know their changes', async () => {
    await everything(file('a', '1'), file('b', '2'));
    const { id } = await one(service, 'select id from filestore.begin_scan($1)', [key]);
    await service.query('select filestore.record_entries($1, $2)', [
      id,
      JSON.stringify([file('a', '1', 9), file('b', '2', 9)]),
    ]);
    await service.query('select filestore.apply_scan($1)', [id]);
    await service.query('select filestore.apply_scan($1, 0.2, 1)', [id]);
    await service.query("select filestore.expire_commands('0')");
    for (let state = ''; state !== 'finished'; ) {
      ({ state } = await one(service, 'select state from filestore.apply_scan($1)', [id]));
    }
    const { rows } = await service.query(
      'select status from filestore.journal_entries where backend_mount_id = $1 order by id',
      [mountId],
    );
    expect(rows.map(({ status }) => status)).toEqual(['succeeded', 'failed', 'succeeded']);
    expect(await states()).toEqual(['a active', 'b active']);
  });

  test('leaves work that follows in the transaction without an entry', async () => {
    const { id } = await one(service, 'select id from filestore.begin_scan($1)', [key]);
    await service.query('select filestore.record_entries($1, $2)', [id, JSON.stringify([file('a', '1')])]);
    await service.query('select filestore.apply_scan($1)', [id]);
    await service.query('begin');
    await service.query('select filestore.apply_scan($1)', [id]);
    await service.query("select filestore.upsert_file($1, 'a', 77)", [key]);
    await service.query('commit');
    expect(
      await database().query(
        'select superseded_by_journal_id from filestore.snapshots where backend_mount_id = $1',
        [mountId],
      ),
    ).toEqual([{ superseded_by_journal_id: null }]);
  });
});
