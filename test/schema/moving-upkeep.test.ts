import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import {
  closeMount,
  createMovingMount,
  dropPublications,
  type MovingMount,
  publishMount,
} from '../support/rows/moving-mount.ts';
import { foldAll, one } from '../support/rows/nodes.ts';
import { applyOnce, file, recordScan } from '../support/rows/scans.ts';

const database = databaseEmptiedAfterEachTest();

/** In order of id. The other functions take the last one later, or not at all. */
let moving: MovingMount;
let others: readonly MovingMount[];

const PURGE = "select filestore.purge_deleted('0', 100000) as purged";
const EXPIRE = "select backend_mount_id as mount from filestore.expire_commands('0') order by id";

beforeEach(async () => {
  const [before, middle, after] = [
    await createMovingMount(database()),
    await createMovingMount(database()),
    await createMovingMount(database()),
  ];
  [moving, others] = [middle, [before, after]];
  await foldAll(database());
  await database().query('call filestore.prepare_moves(true)');
});
afterEach(() => dropPublications(database()));

describe('purge_deleted', () => {
  test('leaves a mount that begins to move while it waits for its tree, after it has purged the others', async () => {
    const [service, operator] = [await database().connect(), await database().connect()];
    await service.query('begin');
    await service.query('select filestore.lock_tree($1, false)', [moving.mount.id]);
    expect(await one(operator, PURGE)).toEqual({ purged: 2 });
    const purging = await sendAndBlock(operator, PURGE);
    expect(purging.waits).toBe(true);
    await publishMount(database(), moving.key);
    await service.query('commit');
    expect(await purging.outcome).toMatchObject({ ok: true, result: { rows: [{ purged: 0 }] } });
    expect(await database().query('select id from filestore.nodes where not live')).toEqual([
      { id: moving.tombstone },
    ]);
  });

  test('is refused while a stranger holds the lock of a mount that does not move', async () => {
    const stranger = await database().connect();
    await stranger.query('begin');
    await stranger.query("select pg_advisory_xact_lock(hashtextextended('filestore.move', $1))", [
      moving.mount.id,
    ]);
    await expect(database().query(PURGE)).rejects.toMatchObject({ constraint: 'backend_mounts_moving' });
    await stranger.query('commit');
    expect(await one(database(), PURGE)).toEqual({ purged: 3 });
  });
});

describe('expire_commands', () => {
  const elsewhere = () => others.map(({ mount }) => ({ mount: mount.id }));

  test('leaves a mount whose cut-over waits for a writer, and expires the commands of the others', async () => {
    await publishMount(database(), moving.key);
    const [writer, owner] = [await database().connect(), await database().connect()];
    await writer.query('begin');
    await writer.query('update filestore.nodes set size_bytes = 5 where id = $1', [moving.file]);
    // As close_mount takes it.
    await owner.query('begin');
    const closing = await sendAndBlock(
      owner,
      "select pg_advisory_xact_lock(hashtextextended('filestore.move', $1))",
      [moving.mount.id],
    );
    expect(closing.waits).toBe(true);
    // The command of that mount is not the last one, and does not count as one of the two.
    const two = "select backend_mount_id as mount from filestore.expire_commands('0', 2) order by id";
    expect(await database().query(two)).toEqual(elsewhere());
    await writer.query('commit');
    await closing.outcome;
    expect(await database().query(EXPIRE)).toEqual([]);
    await owner.query('rollback');
    expect(await database().query(EXPIRE)).toEqual([{ mount: moving.mount.id }]);
  });

  test('leaves a mount that is closed, and expires the commands of the others', async () => {
    await publishMount(database(), moving.key);
    await closeMount(database(), moving.mount);
    expect(await database().query(EXPIRE)).toEqual(elsewhere());
  });

  test('leaves a mount on a promoted standby, and expires the commands of the others', async () => {
    await publishMount(database(), moving.key);
    await database().query("update filestore.moves set step = 'proved', timeline = 'FFFFFFFF'");
    expect(await database().query(EXPIRE)).toEqual(elsewhere());
  });

  test('expires the commands of a mount that was erased', async () => {
    const [erased] = others;
    await database().query("update filestore.backend_mounts set state = 'inactive' where id = $1", [
      erased?.mount.id,
    ]);
    await database().query('call filestore.erase_mount($1)', [erased?.key]);
    expect(await database().query(EXPIRE)).toHaveLength(3);
  });

  test('keeps a cut-over from beginning until it has ended', async () => {
    await publishMount(database(), moving.key);
    const [service, owner] = [await database().connect(), await database().connect()];
    await service.query('begin');
    expect((await service.query(EXPIRE)).rows).toHaveLength(3);
    const { rows } = await owner.query(
      "select pg_try_advisory_xact_lock(hashtextextended('filestore.move', $1)) as locked",
      [moving.mount.id],
    );
    expect(rows).toEqual([{ locked: false }]);
    await service.query('commit');
  });
});

describe('a scan whose command runs', () => {
  let scanId: string;
  let elsewhere: string;

  const states = () => database().query('select id, state from filestore.scans order by id');
  const command = async () =>
    one(
      database(),
      `select j.status from filestore.scans s
       join filestore.journal_entries j on j.id = s.journal_entry_ids[cardinality(s.journal_entry_ids)]
       where s.id = $1`,
      [scanId],
    );
  const expire = async () => {
    await database().query("update filestore.scans set expires_at = now() - interval '1 second'");
    return one(database(), 'select filestore.expire_scans() as ended');
  };

  beforeEach(async () => {
    scanId = await recordScan(database(), moving.key, [file('one'), file('two')]);
    await applyOnce(database(), scanId);
    await applyOnce(database(), scanId, 1, 1);
    elsewhere = await recordScan(database(), others[0]?.key ?? '', []);
  });

  test('expires after the cut-over of its mount, as others do, and its command is left to the target', async () => {
    await publishMount(database(), moving.key);
    await closeMount(database(), moving.mount);
    expect(await expire()).toEqual({ ended: 2 });
    expect(await states()).toEqual([
      { id: scanId, state: 'expired' },
      { id: elsewhere, state: 'expired' },
    ]);
    expect(await command()).toEqual({ status: 'running' });
  });

  test('can be canceled after the cut-over of its mount', async () => {
    await publishMount(database(), moving.key);
    await closeMount(database(), moving.mount);
    await database().query('select filestore.cancel_scan($1)', [scanId]);
    expect((await states())[0]).toEqual({ id: scanId, state: 'canceled' });
  });

  test('expires although another session holds the command, which is left to it', async () => {
    const worker = await database().connect();
    await worker.query('begin');
    await worker.query(
      'select from filestore.journal_entries where id = any (select unnest(journal_entry_ids) from filestore.scans) for update',
    );
    expect(await expire()).toEqual({ ended: 2 });
    await worker.query('commit');
    expect(await command()).toEqual({ status: 'running' });
  });

  test('expires with its command', async () => {
    expect(await expire()).toEqual({ ended: 2 });
    expect(await command()).toEqual({ status: 'failed' });
  });
});
