import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/concurrency.ts';
import { databaseForFile } from '../support/database.ts';
import { createMount, createNode, one } from '../support/tree.ts';

const database = databaseForFile();

let first: Client;
let second: Client;

beforeEach(async () => {
  await database().query(
    "update filestore.journal_entries set status = 'canceled', completed_at = now() where completed_at is null",
  );
  await database().query('delete from filestore.journal_entries');
  [first, second] = [await database().connect(), await database().connect()];
});

/** Writes entries down as they would stand there after so many days, the oldest first, and returns their ids. */
async function recordEntries(status: string, ...daysAgo: readonly number[]): Promise<readonly string[]> {
  const rows = await database().query<{ id: string }>(
    `insert into filestore.journal_entries (command, status, error, created_at, started_at, completed_at)
     select 'move', $1, case when $1 = 'failed' then '{}'::jsonb end, at,
            case when $1 <> 'queued' then at end, case when $1 not in ('queued', 'running') then at end
     from (select now() - make_interval(days => d) as at from unnest($2::integer[]) d) times
     returning id`,
    [status, daysAgo],
  );
  return rows.map(({ id }) => id);
}

const expire = async (client: Client, olderThan: string, batch = 1000): Promise<readonly string[]> =>
  (
    await client.query('select id from filestore.expire_commands($1, $2) order by id', [olderThan, batch])
  ).rows.map(({ id }) => id);
const prune = async (client: Client, olderThan: string, batch = 1000): Promise<number> =>
  (await client.query('select filestore.prune_journal($1, $2) as pruned', [olderThan, batch])).rows[0].pruned;
const finish = (client: Client, id: string | undefined) =>
  client.query("select filestore.finish_command($1, 'succeeded')", [id]);
const entries = async () =>
  (await database().query('select id from filestore.journal_entries order by id')).map(({ id }) => id);

describe('expire_commands', () => {
  test('marks what began longer ago and never ended as failed, and nothing else', async () => {
    const [old] = await recordEntries('running', 3);
    await recordEntries('running', 1);
    await recordEntries('queued', 3);
    await recordEntries('succeeded', 3);
    expect(await expire(first, '2 days')).toEqual([old]);
    expect(
      await database().query(
        "select id, error ->> 'code' as code, completed_at is null as open from filestore.journal_entries where status = 'failed'",
      ),
    ).toEqual([{ id: old, code: 'expired', open: false }]);
    expect(await expire(first, '2 days')).toEqual([]);
  });

  test('takes the oldest first, a batch at a time', async () => {
    const ids = await recordEntries('running', 5, 4, 3);
    expect([await expire(first, '1 day', 2), await expire(first, '1 day', 2)]).toEqual([
      ids.slice(0, 2),
      ids.slice(2),
    ]);
  });

  test('takes no more than a batch, whatever the statistics say', async () => {
    await recordEntries('running', 9);
    // A plan for a table of one row may look for the batch again for every row it finds.
    await database().query('vacuum analyze filestore.journal_entries');
    await recordEntries('running', 8, 7, 6, 5, 4);
    expect(await expire(first, '1 day', 2)).toHaveLength(2);
  });

  test('leaves a command that is just being finished', async () => {
    const [busy, dead] = await recordEntries('running', 3, 3);
    await first.query('begin');
    await finish(first, busy);
    expect(await expire(second, '1 day')).toEqual([dead]);
    await first.query('commit');
    expect(
      await one(database(), 'select status from filestore.journal_entries where id = $1', [busy]),
    ).toEqual({ status: 'succeeded' });
  });

  test.each([
    ['commit', 'FS409'],
    ['rollback', undefined],
  ])('makes who finishes late wait, and after its %s: %s', async (ending, code) => {
    const [id] = await recordEntries('running', 3);
    await first.query('begin');
    await expire(first, '1 day');
    const late = await sendAndBlock(second, "select filestore.finish_command($1, 'succeeded')", [id]);
    expect(late.waits).toBe(true);
    await first.query(ending);
    expect(await late.outcome).toMatchObject(
      code === undefined ? { ok: true } : { ok: false, error: { code } },
    );
  });
});

describe('prune_journal', () => {
  test('removes what ended longer ago, and says how many', async () => {
    await recordEntries('succeeded', 9, 8);
    await recordEntries('failed', 7);
    await recordEntries('canceled', 6);
    const kept = [
      ...(await recordEntries('queued', 9)),
      ...(await recordEntries('running', 9)),
      ...(await recordEntries('succeeded', 4)),
    ];
    expect([await prune(first, '5 days'), await prune(first, '5 days')]).toEqual([4, 0]);
    expect(await entries()).toEqual(kept);
  });

  test('keeps what began long ago and ended lately', async () => {
    const [id] = await recordEntries('running', 9);
    await finish(first, id);
    expect(await prune(first, '5 days')).toBe(0);
  });

  test('removes a batch at a time', async () => {
    await recordEntries('succeeded', 9);
    await database().query('vacuum analyze filestore.journal_entries');
    await recordEntries('succeeded', 9, 9, 9, 9);
    const pruned: number[] = [];
    do pruned.push(await prune(first, '5 days', 2));
    while (pruned.at(-1) !== 0);
    expect(pruned).toEqual([2, 2, 1, 0]);
  });

  test('leaves out what another transaction holds', async () => {
    const [held] = await recordEntries('succeeded', 9, 9);
    await first.query('begin');
    await first.query('select from filestore.journal_entries where id = $1 for update', [held]);
    expect(await prune(second, '5 days')).toBe(1);
    await first.query('commit');
    expect(await entries()).toEqual([held]);
  });
});

test.each(
  ['expire_commands', 'prune_journal'].flatMap((name) =>
    ['null, 1', "'-1 second', 1", "'1 day', 0", "'1 day', -1", "'1 day', null"].map(
      (given) => `${name}(${given})`,
    ),
  ),
)('%s is refused', async (call) => {
  await recordEntries('running', 9);
  await recordEntries('succeeded', 9);
  await expect(database().query(`select filestore.${call}`)).rejects.toMatchObject({ code: 'FS422' });
});

describe('an entry written by hand', () => {
  const update = (id: string | undefined, change: string) =>
    database().query(`update filestore.journal_entries set ${change} where id = $1`, [id]);

  test.each(['succeeded', 'failed', 'canceled'])('never changes again once it is %s', async (status) => {
    const [id] = await recordEntries(status, 1);
    for (const change of [
      'status = status',
      "status = 'running', completed_at = null",
      "error = '{}'",
      'request_id = null',
      'affected_node_ids = array[1]',
    ]) {
      await expect(update(id, change)).rejects.toMatchObject({ code: 'FS409' });
    }
  });

  test.each([
    ['running', "status = 'queued', started_at = null"],
    ['running', "result = '{}'"],
    ['queued', 'status = status'],
    ...[
      'id = default',
      "command = 'delete'",
      'backend_mount_id = 1',
      "principal = 'eve'",
      "request_id = 'r'",
      "correlation_id = 'c'",
      "idempotency_key = 'k'",
      `parameters = '{"a": 1}'`,
      "executor_kind = 's3'",
      "created_at = '2000-01-01'",
      "started_at = '2000-01-01'",
    ].map((change) => ['running', `status = 'canceled', completed_at = now(), ${change}`]),
  ] as [string, string][])('that is %s does not take: %s', async (status, change) => {
    const [id] = await recordEntries(status, 1);
    await expect(update(id, change)).rejects.toMatchObject({ code: 'FS422' });
  });

  test.each(['queued', 'running'])('that is %s cannot be removed', async (status) => {
    await recordEntries(status, 1);
    await expect(database().query('delete from filestore.journal_entries')).rejects.toMatchObject({
      code: 'FS409',
    });
  });
});

describe('the setting filestore.journal_entry_id', () => {
  let file: string;
  const change = (client: Client) =>
    client.query('update filestore.nodes set size_bytes = size_bytes + 1 where id = $1', [file]);
  const links = async () =>
    (
      await database().query(
        'select superseded_by_journal_id as id from filestore.snapshots where node_id = $1 order by version',
        [file],
      )
    ).map(({ id }) => id);

  beforeEach(async () => {
    const mount = await createMount(database());
    file = await createNode(database(), mount, mount.rootId, 'f');
  });

  test('links the versions that are superseded while it is set to the command, until the transaction ends', async () => {
    await change(first);
    await first.query('begin');
    await first.query('set local filestore.journal_entry_id = 42');
    await change(first);
    await first.query('savepoint s');
    await first.query('set local filestore.journal_entry_id = 43');
    await first.query('rollback to s');
    await change(first);
    await first.query('commit');
    await change(first);
    expect(await links()).toEqual([null, '42', '42', null]);
  });

  test.each(['x', '-1', '1.5', ' 1', '1e3', '9'.repeat(19), '0x1'])(
    'that is no number (%s) fails the change',
    async (setting) => {
      await first.query("select set_config('filestore.journal_entry_id', $1, false)", [setting]);
      await expect(change(first)).rejects.toMatchObject({ code: 'FS422' });
      expect(await links()).toEqual([]);
      expect(
        await one(database(), 'select version, size_bytes from filestore.nodes where id = $1', [file]),
      ).toEqual({ version: 1, size_bytes: '0' });
    },
  );
});
