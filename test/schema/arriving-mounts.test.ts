import type { Client } from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createMovingMount, MOVING } from '../support/moving-mount.ts';
import { foldAll, type Mount, one } from '../support/nodes.ts';
import { databaseForEachTest } from '../support/test-database.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();

let service: Client;
let mount: Mount;
let key: string;
let directory: string;
let file: string;

const query = (text: string, values: unknown[] = []) => database().query(text, values);
const heldBy = async () =>
  (await one(database(), 'select held_by from filestore.backend_mounts where id = $1', [mount.id])).held_by;
const problems = () => query('select problem, detail from filestore.check_integrity()');

beforeEach(async () => {
  ({ mount, key, directory, file } = await createMovingMount(database()));
  service = await database().connect();
  await query('call filestore.prepare_moves(true)');
});

describe('on its new server', () => {
  // As the subscription writes it.
  const arrive = (held: number) =>
    query('update filestore.backend_mounts set held_by = $2 where id = $1', [mount.id, held]);
  const receive = () => query("call filestore.receive_mount($1, 'move_here')", [key]);

  beforeEach(async () => {
    await query(
      "create subscription move_here connection 'host=nowhere' publication move_away with (connect = false, slot_name = none)",
    );
    await query('set session_replication_role = replica');
    await query('delete from filestore.rollup_deltas');
    await query('delete from filestore.rollups where node_id = any ($1)', [[mount.rootId, directory]]);
    await query('reset session_replication_role');
  });
  // The database cannot be dropped with one.
  afterEach(() => query('drop subscription move_here'));

  test('a mount is refused while it arrives, and not checked', async () => {
    await arrive(9);
    await expect(query("select filestore.create_node($1, 'new')", [directory])).rejects.toMatchObject(MOVING);
    await expect(query('select filestore.record_sightings(array[$1::bigint])', [file])).rejects.toMatchObject(
      MOVING,
    );
    expect(await one(database(), "select filestore.purge_deleted('0') as purged")).toEqual({ purged: 0 });
    expect(await problems()).toEqual([]);
  });

  test('a mount is written once it is received, and its totals are stale until they are recounted', async () => {
    await arrive(-1);
    await receive();
    await query("select filestore.create_node($1, 'new')", [directory]);
    await foldAll(database());
    const totals =
      'select consistency_state as state, file_count::integer as files from filestore.directory_totals($1)';
    expect(await one(database(), totals, [mount.rootId])).toMatchObject({ state: 'stale' });
    await query('select filestore.recount_rollups($1)', [key]);
    expect(await one(database(), totals, [mount.rootId])).toEqual({ state: 'up_to_date', files: 2 });
    expect(await problems()).toEqual([]);
    await receive();
  });

  /** Calls receive_mount, and returns once it waits. */
  const beginToReceive = async () => {
    const { pid } = await one(service, 'select pg_backend_pid() as pid');
    const received = service.query("call filestore.receive_mount($1, 'move_here')", [key]);
    // Its failure is reported when it is awaited.
    received.catch(() => undefined);
    const waiting = "select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep'";
    await until(async () => (await query(waiting, [pid])).length === 1);
    return { received, pid };
  };

  test('receive_mount waits until the mount is closed', async () => {
    await arrive(9);
    const { received } = await beginToReceive();
    await expect(query('select filestore.writable_mount($1)', [key])).rejects.toMatchObject(MOVING);
    await arrive(-1);
    await received;
    await query('select filestore.writable_mount($1)', [key]);
  });

  test('receive_mount continues when it is called again after its session was ended', async () => {
    await arrive(9);
    const { received, pid } = await beginToReceive();
    await query('select pg_terminate_backend($1)', [pid]);
    await expect(received).rejects.toThrow();
    await arrive(-1);
    await receive();
    expect(await heldBy()).toBeNull();
  });

  test('receive_mount waits until every table is copied', async () => {
    await query('set allow_system_table_mods = on');
    await query(`insert into pg_subscription_rel (srsubid, srrelid, srsubstate)
      select oid, 'filestore.nodes'::regclass, 'd' from pg_subscription where subname = 'move_here'
        and subdbid = (select oid from pg_database where datname = current_database())`);
    await arrive(-1);
    const { received } = await beginToReceive();
    expect(await heldBy()).toBe(-1);
    await query("update pg_subscription_rel set srsubstate = 'r'");
    await received;
    expect(await heldBy()).toBeNull();
  });

  test('receive_mount refuses a server with the same number, and a subscription that is not there', async () => {
    await arrive(0);
    await expect(receive()).rejects.toMatchObject({ code: 'FS409', constraint: 'database_number_check' });
    await expect(query("call filestore.receive_mount($1, 'nothing')", [key])).rejects.toMatchObject({
      code: 'FS404',
      constraint: 'move_subscription_missing',
    });
  });

  test('a mount that arrived in part is erased, with its journal', async () => {
    await arrive(9);
    await query('call filestore.erase_mount($1)', [key]);
    expect(await query('select from filestore.backend_mounts where id = $1', [mount.id])).toEqual([]);
    expect(await query('select from filestore.journal_entries')).toEqual([]);
  });
});
