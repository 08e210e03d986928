import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { emptyJournal, recordEntries } from '../support/rows/journal-entries.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForFile();

let first: Client;
let second: Client;

beforeEach(async () => {
  await emptyJournal(database());
  [first, second] = [await database().connect(), await database().connect()];
});

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
  test('marks only old commands that have not ended as failed', async () => {
    const [old] = await recordEntries(database(), 'running', 3);
    await recordEntries(database(), 'running', 1);
    await recordEntries(database(), 'queued', 3);
    await recordEntries(database(), 'succeeded', 3);
    expect(await expire(first, '2 days')).toEqual([old]);
    expect(
      await database().query(
        "select id, error ->> 'code' as code, completed_at is null as open from filestore.journal_entries where status = 'failed'",
      ),
    ).toEqual([{ id: old, code: 'expired', open: false }]);
    expect(await expire(first, '2 days')).toEqual([]);
  });

  test('takes the oldest first, a batch at a time', async () => {
    const ids = await recordEntries(database(), 'running', 5, 4, 3);
    expect([await expire(first, '1 day', 2), await expire(first, '1 day', 2)]).toEqual([
      ids.slice(0, 2),
      ids.slice(2),
    ]);
  });

  test('takes no more than a batch, whatever the statistics say', async () => {
    await recordEntries(database(), 'running', 9);
    // With statistics of one row, the planner may compute the batch again for every row.
    await database().query('vacuum analyze filestore.journal_entries');
    await recordEntries(database(), 'running', 8, 7, 6, 5, 4);
    expect(await expire(first, '1 day', 2)).toHaveLength(2);
  });

  test('skips a command that is being finished at the same time', async () => {
    const [busy, dead] = await recordEntries(database(), 'running', 3, 3);
    await first.query('begin');
    await finish(first, busy);
    expect(await expire(second, '1 day')).toEqual([dead]);
    await first.query('commit');
    expect(
      await one(database(), 'select status from filestore.journal_entries where id = $1', [busy]),
    ).toEqual({ status: 'succeeded' });
  });
});

describe('prune_journal', () => {
  test('removes entries that ended longer ago, and returns how many', async () => {
    await recordEntries(database(), 'succeeded', 9, 8);
    await recordEntries(database(), 'failed', 7);
    await recordEntries(database(), 'canceled', 6);
    const kept = [
      ...(await recordEntries(database(), 'queued', 9)),
      ...(await recordEntries(database(), 'running', 9)),
      ...(await recordEntries(database(), 'succeeded', 4)),
    ];
    expect([await prune(first, '5 days'), await prune(first, '5 days')]).toEqual([4, 0]);
    expect(await entries()).toEqual(kept);
  });

  test('keeps an entry that began long ago and ended recently', async () => {
    const [id] = await recordEntries(database(), 'running', 9);
    await finish(first, id);
    expect(await prune(first, '5 days')).toBe(0);
  });

  test('removes a batch at a time', async () => {
    await recordEntries(database(), 'succeeded', 9);
    await database().query('vacuum analyze filestore.journal_entries');
    await recordEntries(database(), 'succeeded', 9, 9, 9, 9);
    const pruned: number[] = [];
    do pruned.push(await prune(first, '5 days', 2));
    while (pruned.at(-1) !== 0);
    expect(pruned).toEqual([2, 2, 1, 0]);
  });

  test('skips entries that another transaction has locked', async () => {
    const [held] = await recordEntries(database(), 'succeeded', 9, 9);
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
  await recordEntries(database(), 'running', 9);
  await recordEntries(database(), 'succeeded', 9);
  await expect(database().query(`select filestore.${call}`)).rejects.toMatchObject({ code: 'FS422' });
});

describe('an entry that is updated by hand', () => {
  const update = (id: string | undefined, change: string) =>
    database().query(`update filestore.journal_entries set ${change} where id = $1`, [id]);

  test.each(['succeeded', 'failed', 'canceled'])('never changes again once it is %s', async (status) => {
    const [id] = await recordEntries(database(), status, 1);
    for (const change of [
      'status = status',
      "status = 'running'",
      "error = '{}'",
      'request_id = null',
      'affected_node_ids = array[1]',
    ]) {
      await expect(update(id, change)).rejects.toMatchObject({ code: 'FS409' });
    }
  });

  test.each([
    ['running', "status = 'queued'"],
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
    ].map((change) => ['running', `status = 'canceled', ${change}`]),
  ] as [string, string][])('that is %s refuses: %s', async (status, change) => {
    const [id] = await recordEntries(database(), status, 1);
    await expect(update(id, change)).rejects.toMatchObject({ code: 'FS422' });
  });

  test('gets its times from the database, whatever the writer gives', async () => {
    const [id] = await recordEntries(database(), 'running', 1);
    await update(
      id,
      "status = 'canceled', started_at = '2000-01-01', completed_at = '2000-01-02', duration_ms = 7",
    );
    const { started, completed, duration } = await one(
      database(),
      `select started_at < now() - interval '23 hours' and started_at > '2001-01-01' as started,
              completed_at > now() - interval '1 hour' as completed, duration_ms > 23 * 3600 * 1000 as duration
       from filestore.journal_entries where id = $1`,
      [id],
    );
    expect({ started, completed, duration }).toEqual({ started: true, completed: true, duration: true });
  });

  test.each(['queued', 'running'])('that is %s cannot be removed', async (status) => {
    await recordEntries(database(), status, 1);
    await expect(database().query('delete from filestore.journal_entries')).rejects.toMatchObject({
      code: 'FS409',
    });
  });
});
