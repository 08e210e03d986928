import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import {
  databaseForEachTest,
  databaseForFile,
  type TestDatabase,
} from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';

/** Adds a column to nodes, as a migration does. */
async function addColumn(database: TestDatabase): Promise<void> {
  for (const table of ['nodes', 'snapshots'])
    await database.query(`alter table filestore.${table} add column shade text`);
}

const CALL = "call filestore.backfill('nodes', 'shade', $1, $2, '0')";
const EXPRESSION = "'shade of ' || name";

async function createFiles(database: TestDatabase, mount: Mount, count: number): Promise<void> {
  await database.query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
     select $1, $2, 'f' || g, 'file' from generate_series(1, $3) g`,
    [mount.id, mount.rootId, count],
  );
}

describe('backfill', () => {
  const database = databaseForEachTest();
  let mount: Mount;

  beforeEach(async () => {
    mount = await createMount(database());
    await addColumn(database());
    await createFiles(database(), mount, 100);
  });

  const fill = (expression = EXPRESSION, batch = 10) => database().query(CALL, [expression, batch]);
  const idOf = async (name: string) =>
    (await one(database(), 'select id from filestore.nodes where name = $1', [name])).id as string;
  const jobs = () => database().query('select * from filestore.backfills order by id');
  /** The rows without the column. */
  const others = () =>
    database().query(
      `select n.id, to_jsonb(n) - 'shade' as other from filestore.nodes n
       where shade is distinct from 'mine' order by n.id`,
    );

  test('fills a column of the journal, of entries that are open or have ended', async () => {
    await database().query('alter table filestore.journal_entries add column shade text');
    await database().query("select filestore.begin_command('open')");
    await database().query(
      "select filestore.finish_command((b.entry).id, 'succeeded') from filestore.begin_command('ended') b",
    );
    const entries = () =>
      database().query("select to_jsonb(j) - 'shade' as entry from filestore.journal_entries j order by id");
    const before = await entries();
    await database().query("call filestore.backfill('journal_entries', 'shade', 'command', pause => '0')");
    expect(await entries()).toEqual(before);
    expect(await database().query('select shade from filestore.journal_entries order by id')).toEqual([
      { shade: 'open' },
      { shade: 'ended' },
    ]);
  });

  test('fills every null, and changes no version, no history and no updated_at', async () => {
    const before = await others();
    await fill();
    expect(await others()).toEqual(before);
    expect(
      await database().query("select from filestore.nodes where shade is distinct from 'shade of ' || name"),
    ).toEqual([]);
    expect(await database().query('select from filestore.snapshots')).toEqual([]);
    expect(await jobs()).toMatchObject([
      { filled: '101', finished_at: expect.any(Date), last_key: await idOf('f100') },
    ]);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });

  test('ends although nodes are created all the time', async () => {
    const service = await database().connect();
    let isOver = false;
    const creating = (async () => {
      for (let number = 1; !isOver; number += 1) {
        await createNode(service, mount, mount.rootId, `new ${number}`);
      }
    })();
    await database()
      .query("call filestore.backfill('nodes', 'shade', $1, 10, '20 ms')", [EXPRESSION])
      .finally(() => {
        isOver = true;
      });
    await creating;
    expect(await jobs()).toMatchObject([{ finished_at: expect.any(Date) }]);
    expect(
      await database().query("select from filestore.nodes where shade is null and name like 'f%'"),
    ).toEqual([]);
  });

  test('that is killed halfway continues where it stopped', async () => {
    const before = await others();
    const [holder, filler] = [await database().connect(), await database().connect()];
    await holder.query('begin');
    await holder.query('select from filestore.nodes where id = $1 for update', [await idOf('f55')]);
    const { rows } = await filler.query('select pg_backend_pid() as pid');
    const filling = await sendAndBlock(filler, CALL, [EXPRESSION, 10]);
    expect(filling.waits).toBe(true);
    await database().query('select pg_terminate_backend($1)', [rows[0].pid]);
    expect(await filling.outcome).toMatchObject({ ok: false, error: { code: '57P01' } });
    await holder.query('rollback');

    const filled = () => database().query('select from filestore.nodes where shade is not null');
    expect(await filled()).toHaveLength(50);
    expect(await jobs()).toMatchObject([{ filled: '50', finished_at: null }]);
    await fill();
    expect(await filled()).toHaveLength(101);
    expect(await jobs()).toMatchObject([{ filled: '101', finished_at: expect.any(Date) }]);
    expect(await others()).toEqual(before);
    expect(await database().query('select from filestore.snapshots')).toEqual([]);
  });

  test.each([
    ['before it comes by', 'f80'],
    ['while it waits for the row', 'f55'],
  ])('keeps a value that a user wrote %s, and that write is versioned', async (_, name) => {
    const [user, filler] = [await database().connect(), await database().connect()];
    await user.query('begin');
    await user.query('select from filestore.nodes where id = $1 for update', [await idOf('f55')]);
    const filling = await sendAndBlock(filler, CALL, [EXPRESSION, 10]);
    expect(filling.waits).toBe(true);
    await user.query("update filestore.nodes set shade = 'mine' where name = $1", [name]);
    await user.query('commit');
    expect(await filling.outcome).toMatchObject({ ok: true });
    expect(
      await database().query('select name, version from filestore.nodes where version > 1 or shade = $1', [
        'mine',
      ]),
    ).toEqual([{ name, version: 2 }]);
    expect(await database().query('select id, shade, version from filestore.snapshots')).toEqual([
      { id: await idOf(name), shade: null, version: 1 },
    ]);
    expect(await jobs()).toMatchObject([{ filled: '100' }]);
  });

  test.each([
    ['another column', 'size_bytes = 5'],
    ['another column of the same row as well', "size_bytes = 5, shade = 'x'"],
    ['the column of a row that had a value', "shade = 'x'", "update filestore.nodes set shade = 'y'"],
  ])(
    'in the transaction of a batch, a version is added for a change of %s',
    async (_, change, before = 'select 1') => {
      const client = await database().connect();
      await client.query(before);
      const version = Number(
        (await one(client, "select version from filestore.nodes where name = 'f90'")).version,
      );
      await client.query(
        "insert into filestore.backfills (table_name, column_name, expression) values ('nodes', 'shade', $1)",
        [EXPRESSION],
      );
      await client.query('begin');
      await client.query(
        "select filestore.fill_batch(max(id), 'id', 10, 9223372036854775807) from filestore.backfills",
      );
      const after = await one(
        client,
        `update filestore.nodes set ${change} where name = 'f90' returning version`,
      );
      await client.query('commit');
      expect(after).toEqual({ version: version + 1 });
    },
  );

  test('that is unfinished refuses another expression, and accepts one when it is done', async () => {
    await database().query(
      "insert into filestore.backfills (table_name, column_name, expression) values ('nodes', 'shade', $1)",
      [EXPRESSION],
    );
    await expect(fill("'x'")).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'backfill_expression_check',
      message: expect.stringContaining('nodes.shade'),
      hint: expect.stringContaining('filestore.backfills'),
    });
    await fill();
    await fill("'x'");
    expect(await jobs()).toMatchObject([{ filled: '101' }, { filled: '0', finished_at: expect.any(Date) }]);
  });

  test.each([
    ["'nowhere', 'shade', $$'x'$$", 'FS404', 'nowhere.shade'],
    ["'nodes', 'nothing', $$'x'$$", 'FS404', 'nodes.nothing'],
    ["null, 'shade', $$'x'$$", 'FS404', 'null.shade'],
    ["'nodes', null, $$'x'$$", 'FS404', 'nodes.null'],
    ["'nodes', 'shade', null", 'FS404', 'the expression is null'],
    ["'nodes', 'shade', $$'x'$$, 0", 'FS422', 'batch cannot be 0'],
    ["'nodes', 'shade', $$'x'$$, null", 'FS422', 'batch cannot be null'],
    ["'nodes', 'shade', $$'x'$$, 10, null", 'FS422', 'pause cannot be null'],
    ["'nodes', 'shade', $$'x'$$, 10, '-1 second'", 'FS422', 'pause cannot be -00:00:01'],
    ["'nodes', 'shade', $$'x'$$, 10, '2 hours'", 'FS422', 'pause cannot be 02:00:00'],
    [
      "'snapshots', 'shade', $$'x'$$",
      'FS422',
      'the primary key of filestore.snapshots is not one bigint column',
    ],
    ["'nodes', 'shade', $$nothing || 'x'$$", '42703', 'nothing'],
  ])('refuses (%s)', async (values, code, names) => {
    await expect(database().query(`call filestore.backfill(${values})`)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(names),
    });
    expect(await database().query('select from filestore.nodes where shade is not null')).toEqual([]);
  });
});

describe('a service', () => {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);
  let service: Client;
  let mount: Mount;

  beforeAll(async () => {
    await addColumn(database());
    service = await connectAs('service');
    await database().query('select filestore.renew_access()');
    mount = await createMount(database());
    await createFiles(database(), mount, 20);
  });

  test('can call neither a backfill nor its parts, and cannot write its progress', async () => {
    for (const statement of [
      "call filestore.backfill('nodes', 'shade', '1')",
      "select filestore.fill_batch(1, 'id', 10, 1)",
      "insert into filestore.backfills (table_name, column_name, expression) values ('nodes', 'shade', '1')",
      'update filestore.backfills set transaction_id = pg_current_xact_id()',
    ])
      await expect(service.query(statement)).rejects.toMatchObject({ code: '42501' });
  });

  test('does not end a job for a call that began with more rows', async () => {
    await database().query(CALL, [EXPRESSION, 5]);
    await createNode(service, mount, mount.rootId, 'later');
    const { job, end } = await one(
      database(),
      'select (select max(id) from filestore.backfills) as job, (select max(id) from filestore.nodes) as end',
    );
    await database().query("select filestore.fill_batch($1, 'id', 1000, $2)", [job, end]);
    expect(await database().query("select shade from filestore.nodes where name = 'later'")).not.toEqual([
      { shade: null },
    ]);
  });

  test('finds no number of a transaction in the progress of a backfill, whose copy on another server would allow one there', async () => {
    await database().query(CALL, [EXPRESSION, 5]);
    const rows = await database().query(
      'select finished_at is not null as finished, transaction_id from filestore.backfills',
    );
    expect(new Set(rows.map((row) => JSON.stringify(row)))).toEqual(
      new Set(['{"finished":true,"transaction_id":null}']),
    );
  });

  test('cannot change nodes without a new version by setting filestore.backfill_id during a backfill', async () => {
    const id = await createNode(service, mount, mount.rootId, 'mine');
    const holder = await database().connect();
    await holder.query('begin');
    await holder.query("select from filestore.nodes where name = 'f15' for update");
    const filling = await sendAndBlock(await database().connect(), CALL, [EXPRESSION, 5]);
    const { job } = await one(database(), 'select max(id) as job from filestore.backfills');
    await service.query("select set_config('filestore.backfill_id', $1, false)", [job]);
    const changed = await one(
      service,
      "update filestore.nodes set shade = 'mine' where id = $1 returning version",
      [id],
    );
    expect(changed).toEqual({ version: 2 });
    await holder.query('rollback');
    expect(await filling.outcome).toMatchObject({ ok: true });
    expect(await one(service, 'select shade, version from filestore.nodes where id = $1', [id])).toEqual({
      shade: 'mine',
      version: 2,
    });
  });
});
