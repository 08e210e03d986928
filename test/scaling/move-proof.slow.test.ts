import { setTimeout as delay } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { cutOver } from '../../src/move/cut-over.ts';
import { openSide } from '../../src/move/side.ts';
import { parseDatabaseUrl } from '../../src/settings/database-url.ts';
import { isRefusal } from '../../src/sql/index.ts';
import { until } from '../support/until.ts';
import { newWalk, rowsOf, takersOf } from './small-mounts.ts';
import { type NumberedDatabase, startTwoDatabases, type TwoDatabases } from './two-databases.ts';
import type { MoveWalk } from './walk-move.ts';

let databases: TwoDatabases;
beforeAll(async () => {
  databases = await startTwoDatabases();
}, 120_000);
afterAll(() => databases?.stop());

const PROOF = { code: 'FS409', constraint: 'moves_proof_check' };
const mountIdOf = ({ receipts }: MoveWalk) =>
  (receipts.ticket?.mount as { readonly id: number } | undefined)?.id;

/** Changes rows as a failover or a person with the guards off would: no trigger fires, and nothing is replicated. */
async function spoil(database: NumberedDatabase, statement: string, walk: MoveWalk): Promise<void> {
  await database.query('begin');
  await database.query('set local session_replication_role = replica');
  await database.query(statement, [mountIdOf(walk)]);
  await database.query('commit');
}

const LOSSES: Readonly<Record<string, string>> = {
  'a node': "delete from filestore.nodes where backend_mount_id = $1 and name = 'f3'",
  'a version': 'delete from filestore.snapshots where backend_mount_id = $1',
  'a command': 'delete from filestore.journal_entries where backend_mount_id = $1',
  'a change of a node':
    "update filestore.nodes set size_bytes = 77 where backend_mount_id = $1 and name = 'f3'",
  'which of two nodes has a value':
    "update filestore.nodes n set size_bytes = o.size_bytes from filestore.nodes o where n.backend_mount_id = $1 and o.path in ('d/f2', 'd/f3') and n.path in ('d/f2', 'd/f3') and o.path <> n.path and o.backend_mount_id = $1",
  'the end of a version':
    "update filestore.snapshots set valid_to = valid_to + interval '1 ms' where backend_mount_id = $1",
};

describe('a target that lacks', () => {
  test.each(Object.entries(LOSSES))(
    '%s is found before the cut-over',
    async (_, loss) => {
      const walk = await (await newWalk(databases)).to('prove source');
      await untilCopied(walk);
      await spoil(walk.target, loss, walk);
      await expect(walk.run('prove target')).rejects.toMatchObject(PROOF);
      expect(await takersOf(walk)).toBe('source');
      await walk.cancel();
      await walk.to('erase');
      expect(await takersOf(walk)).toBe('target');
    },
    20_000,
  );

  test.each(Object.entries(LOSSES))(
    '%s of the time after the mark is found in the cut-over',
    async (what, loss) => {
      const walk = await (await newWalk(databases)).to('prove target');
      await walk.source.query("select filestore.upsert_file($1, 'd/f3', 33)", [walk.key]);
      await walk.source.query(
        "select filestore.begin_command('late', mount_id => m.id) from filestore.backend_mounts m where m.mount_key = $1",
        [walk.key],
      );
      await walk.run('close');
      await walk.run('prove late');
      // Only what is newer than the mark, since the rest is proved already.
      const newest = what.endsWith('version')
        ? `${loss} and path = 'd/f3'`
        : what === 'a command'
          ? `${loss} and command = 'late'`
          : loss;
      await spoil(walk.target, newest, walk);
      await walk.run('prove late');
      await expect(walk.run('release')).rejects.toMatchObject(PROOF);
      expect(await takersOf(walk)).toBe('');
      await walk.cancel();
      expect(await takersOf(walk)).toBe('source');
    },
    20_000,
  );

  test('what changed while it had no subscription is found', async () => {
    const walk = await (await newWalk(databases)).to('prove target');
    await walk.run('unsubscribe');
    await walk.source.query("select filestore.upsert_file($1, 'd/gap', 1)", [walk.key]);
    await walk.subscribe({ copyData: false });
    await walk.source.query("select filestore.upsert_file($1, 'd/after', 1)", [walk.key]);
    await walk.run('close');
    await walk.run('prove late');
    await expect(walk.run('release')).rejects.toMatchObject(PROOF);
    await walk.cancel();
    expect(await takersOf(walk)).toBe('source');
  }, 20_000);
});

test.each(Object.entries(LOSSES))(
  'a source that lacks %s is not released',
  async (_, loss) => {
    const walk = await (await newWalk(databases)).to('subscribe');
    await untilTablesCopied(walk);
    // As a source that failed over: its target has more than it has.
    await walk.source.query(
      'alter publication ' +
        walk.name +
        ' drop table filestore.nodes, filestore.snapshots, filestore.journal_entries',
    );
    await spoil(walk.source, loss, walk);
    await walk.run('prove source');
    await expect(walk.run('prove target')).rejects.toMatchObject(PROOF);
    await walk.cancel();
    expect(await takersOf(walk)).toBe('source');
  },
  20_000,
);

test('a copy from a database without the publication is refused, and says why', async () => {
  const walk = await (await newWalk(databases)).to('accept');
  await walk.subscribe({ from: walk.target });
  const prove = walk.target.query('select filestore.prove_mount($1)', [walk.key]);
  await expect(prove).rejects.toMatchObject({
    constraint: 'moves_subscription_check',
    message: `subscription ${walk.name} found 0 of the 5 tables of publication ${walk.name}`,
  });
  await walk.cancel();
  expect(await takersOf(walk)).toBe('source');
}, 20_000);

test('a key that was taken on the target while its triggers were off stops the copy alone, and is named', async () => {
  const walk = await (await newWalk(databases)).to('accept');
  await walk.target.query('set session_replication_role = replica');
  await walk.target.query(
    "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ($1, 'local', '/other/' || $1)",
    [walk.key],
  );
  await walk.target.query('reset session_replication_role');
  await walk.run('subscribe');
  await walk.run('prove source');
  const waiting = await until(async () => {
    const [row] = await walk.target.query<{ r: { waits_for?: string } }>(
      'select filestore.prove_mount($1) as r',
      [walk.key],
    );
    return row?.r.waits_for?.includes('errors') && row.r.waits_for;
  });
  expect(waiting).toMatch(
    /^the copy: [0-4] of 5 tables are here \(\d+ errors of its workers so far: see this server's log\)$/,
  );
  const [own] = await walk.target.query<{ id: string }>(
    'select id from filestore.backend_mounts where mount_key = $1',
    [walk.key],
  );
  await walk.target.query('create role watcher');
  await walk.target.query("select filestore.grant_access('watcher', 'reader')");
  await walk.target.query('set role watcher');
  const [seen] = await walk.target.query(
    'select problem from filestore.view_filestore_mount_moves where mount_key = $1',
    [walk.key],
  );
  await walk.target.query('reset role');
  expect(seen?.problem).toMatch(/errors of the workers of subscription/);
  const before = await rowsOf(walk.target, own?.id);
  await walk.cancel();
  expect(await rowsOf(walk.target, own?.id)).toEqual(before);
  expect(
    await walk.target.query('select from filestore.nodes where backend_mount_id = $1', [mountIdOf(walk)]),
  ).toEqual([]);
}, 30_000);

test('a cut-over that runs out of time is taken back by the next writer, and the next one succeeds', async () => {
  const walk = await (await newWalk(databases)).to('prove target');
  await walk.close('1 s');
  await walk.run('prove source');
  await walk.run('prove late');
  await until(async () => (await takersOf(walk)) === 'source');
  await walk.source.query("select filestore.upsert_file($1, 'd/late', 5)", [walk.key]);
  await expect(walk.run('release')).rejects.toMatchObject({ constraint: 'moves_step_check' });
  await walk.run('close');
  await walk.run('prove source');
  await walk.through('prove late');
  expect(await takersOf(walk)).toBe('target');
  const found = await walk.target.query("select n.size_bytes from filestore.node_by_path($1, 'd/late') n", [
    walk.key,
  ]);
  expect(found).toEqual([{ size_bytes: '5' }]);
}, 20_000);

test('a cut-over does not take the receipt of the attempt before, which the target may still know', async () => {
  const walk = await (await newWalk(databases)).to('prove target');
  await walk.close('100 ms');
  await walk.run('prove late');
  await until(async () => (await takersOf(walk)) === 'source');
  // Keeps the next steps of the source from the target.
  const holder = await walk.target.connect();
  await holder.query('begin');
  await holder.query('select from filestore.moves where id = $1 and written_by = $2 for update', [
    walk.receipts.ticket?.move,
    walk.source.number,
  ]);
  await walk.source.query("select filestore.upsert_file($1, 'd/late', 5)", [walk.key]);
  const [source, target] = await Promise.all(
    [walk.source, walk.target].map(({ url }) =>
      openSide({ ...parseDatabaseUrl('url', url), applicationName: 'test', connectTimeoutMs: 5000 }),
    ),
  );
  if (source === undefined || target === undefined) throw new Error('a side is missing');
  const cutting = cutOver({ mountKey: walk.key, source, target, conninfo: '', withinMs: 10_000 });
  await until(async () => (await takersOf(walk)) === '');
  await holder.query('commit');
  expect(await cutting).toMatchObject({ type: 'done' });
  await Promise.all([source.close(), target.close()]);
  expect(await takersOf(walk)).toBe('target');
}, 20_000);

test('a move ends only when the target has every sighting of the source', async () => {
  const walk = await (await newWalk(databases)).to('receive');
  await walk.through('unsubscribe', 'finish target');
  await expect(walk.run('finish source')).rejects.toMatchObject(PROOF);
  await expect(walk.run('erase')).rejects.toMatchObject({ constraint: 'backend_mounts_moving' });
  await walk.run('sightings');
  await walk.through('finish target');
  const sightings =
    'select from filestore.node_sightings s join filestore.nodes n on n.id = s.node_id where n.backend_mount_id = $1';
  expect((await walk.target.query(sightings, [mountIdOf(walk)])).length).toBeGreaterThan(2);
}, 20_000);

test('writers that follow the mount lose nothing, although cut-overs run out of time again and again', async () => {
  const walk = await (await newWalk(databases)).to('prove target');
  const stop = new AbortController();
  const written: string[] = [];
  const writers = [0, 1, 2, 3].map(async (number) => {
    const clients = { source: await walk.source.connect(), target: await walk.target.connect() };
    for (let count = 0; !stop.signal.aborted; ) {
      for (const place of ['source', 'target'] as const) {
        const path = `d/w${number}-${count}`;
        try {
          await clients[place].query('select filestore.upsert_file($1, $2, 1)', [walk.key, path]);
          written.push(path);
          count += 1;
        } catch (error) {
          if (!isRefusal(error, 'backend_mounts_moving', 'backend_mounts_missing', 'nodes_parent_missing'))
            throw error;
        }
      }
    }
  });
  const all = Promise.all(writers);
  for (let attempt = 0; attempt < 6; attempt += 1) {
    await walk.close('100 ms');
    await walk.run('prove late');
    // Around the moment at which the time is over.
    await delay(70 + attempt * 10);
    const released = await walk.run('release').then(
      () => true,
      (error) => {
        expect(error).toMatchObject({ code: 'FS409' });
        return false;
      },
    );
    if (released) break;
    await until(async () => {
      const [row] = await walk.source.query(
        'select step from filestore.moves where id = $1 and written_by = $2',
        [walk.receipts.ticket?.move, walk.source.number],
      );
      return row?.step === 'proved';
    });
  }
  const [{ step } = { step: '' }] = await walk.source.query(
    'select step from filestore.moves where id = $1 and written_by = $2',
    [walk.receipts.ticket?.move, walk.source.number],
  );
  if (step !== 'released') await walk.through('close', 'release');
  await walk.run('receive');
  const soFar = written.length;
  await until(() => written.length > soFar + 20);
  stop.abort();
  await all;
  const found = await walk.target.query<{ path: string }>(
    "select n.path from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id where m.mount_key = $1 and n.name like 'w%'",
    [walk.key],
  );
  expect(found.map(({ path }) => path).sort()).toEqual([...written].sort());
}, 60_000);

async function untilTablesCopied({ target, name }: MoveWalk): Promise<void> {
  const waiting = `select from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
    where s.subname = $1 and r.srsubstate <> 'r'`;
  await until(async () => (await target.query(waiting, [name])).length === 0);
}

/** Until the target has everything up to the count of the source. */
async function untilCopied(walk: MoveWalk): Promise<void> {
  await untilTablesCopied(walk);
  const counted =
    'select from filestore.moves where id = $1 and written_by = $2 and early_digest is not null';
  await until(
    async () =>
      (await walk.target.query(counted, [walk.receipts.ticket?.move, walk.source.number])).length > 0,
  );
}
