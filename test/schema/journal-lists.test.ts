import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { begin, finish, queueCommand } from '../support/rows/journal-entries.ts';
import { createMountsWithIds } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let reader: Client;
let service: Client;

const COMMANDS = ['move', 'copy', 'scan'];
const STATUSES = ['queued', 'running', 'succeeded', 'failed', 'canceled'];

/** Records entries of every command, mount and status, also without a mount. They end in another order than they began. */
beforeAll(async () => {
  [reader, service] = [await connectAs('reader'), await connectAs('service')];
  await createMountsWithIds(database(), 1, 2);
  await database().query(
    `select filestore.begin_command(
       ($1::text[])[1 + g % 3], mount_id => nullif(g / 3 % 3, 0), queue => g / 9 % 5 = 0,
       primary_node_id => nullif(g % 7, 0), secondary_node_id => nullif(g / 7 % 5, 0))
     from generate_series(0, 134) g`,
    [COMMANDS],
  );
  await database().query(
    `select filestore.finish_command(id, ($1::text[])[1 + (id - 1) / 9 % 5], error => case (id - 1) / 9 % 5 when 3 then '{}'::jsonb end,
       affected_node_ids => array[id % 7, id % 11])
     from filestore.journal_entries
     where (id - 1) / 9 % 5 >= 2
     order by id desc`,
    [STATUSES],
  );
});

const idsOf = async (client: Client, text: string, values: unknown[] = []): Promise<readonly string[]> =>
  (await client.query(text, values)).rows.map(({ id }) => id);

/** Reads a list page by page, each before the last id of the previous page. */
async function allPages(
  client: Client,
  call: string,
  values: unknown[],
  size: number,
): Promise<readonly string[]> {
  const ids: string[] = [];
  for (;;) {
    const page = await idsOf(client, `select id from filestore.${call}`, [
      ...values,
      ids.at(-1) ?? null,
      size,
    ]);
    ids.push(...page);
    if (page.length < size) return ids;
  }
}

const LIST = 'list_commands($1, $2, $3, $4, $5)';

describe('list_commands', () => {
  const choices = [null, 1, 2, 9].flatMap((mount) =>
    [null, 'move', 'nothing'].flatMap((command) =>
      [null, ...STATUSES].map((status) => [mount, command, status] as const),
    ),
  );

  test.each(choices)(
    'pages through mount %s, command %s and status %s, the newest first',
    async (...choice) => {
      const all = await idsOf(
        reader,
        `select id from filestore.journal_entries
       where ($1::bigint is null or backend_mount_id = $1)
         and ($2::text is null or command = $2) and ($3::text is null or status = $3)
       order by id desc`,
        [...choice],
      );
      for (const size of [1, 4, 1000]) expect(await allPages(reader, LIST, [...choice], size)).toEqual(all);
    },
  );

  test('lists all entries without an argument, 100 of them', async () => {
    const ids = await idsOf(reader, 'select id from filestore.list_commands()');
    expect(ids).toEqual(
      await idsOf(reader, 'select id from filestore.journal_entries order by id desc limit 100'),
    );
    expect(ids).toHaveLength(100);
  });

  test('repeats no entry and skips none when others are recorded between two pages', async () => {
    const page = (before: string | null) =>
      idsOf(
        service,
        "select id from filestore.list_commands(command => 'page', before_id => $1, page_size => 2)",
        [before],
      );
    const ids: string[] = [];
    for (let n = 0; n < 4; n += 1) ids.push((await begin(service, { command: 'page' })).id);
    const [fourth, third, second, first] = ids.reverse();
    expect(await page(null)).toEqual([fourth, third]);
    await begin(service, { command: 'page' });
    await finish(service, `${first}`, 'succeeded');
    expect(await page(`${third}`)).toEqual([second, first]);
    expect(await page(`${first}`)).toEqual([]);
  });

  test('shows a change of its status at once', async () => {
    const id = await queueCommand(service);
    const listed = async (status: string) =>
      (
        await idsOf(service, 'select id from filestore.list_commands(status => $1, page_size => 1)', [status])
      )[0];
    expect(await listed('queued')).toBe(id);
    await service.query('select filestore.start_command($1)', [id]);
    expect([await listed('running'), (await listed('queued')) === id]).toEqual([id, false]);
    await finish(service, id, 'succeeded');
    expect([await listed('succeeded'), (await listed('running')) === id]).toEqual([id, false]);
  });

  test('finds nothing before the first id', async () => {
    for (const before of ['0', '1', '-9223372036854775808']) {
      expect(
        await idsOf(reader, 'select id from filestore.list_commands(before_id => $1)', [before]),
      ).toEqual([]);
    }
  });

  test('refuses an unknown status', async () => {
    await expect(reader.query("select filestore.list_commands(status => 'done')")).rejects.toMatchObject({
      code: '23514',
      constraint: 'command_status_check',
    });
  });
});

describe('node_commands', () => {
  test.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 99])(
    'pages through all commands of node %i, unfinished ones included, the newest first',
    async (node) => {
      const all = await idsOf(
        reader,
        `select id from filestore.journal_entries
         where primary_node_id = $1 or secondary_node_id = $1 or $1 = any (affected_node_ids)
         order by id desc`,
        [node],
      );
      for (const size of [1, 3, 1000]) {
        expect(await allPages(reader, 'node_commands($1, $2, $3)', [node], size)).toEqual(all);
      }
    },
  );

  test.each([
    ['primary', 'primary_node_id => 500'],
    ['secondary', 'secondary_node_id => 500'],
  ])('shows a command with the node as %s while it runs and after it ended', async (_, part) => {
    const { rows } = await service.query(`select (entry).id from filestore.begin_command('x', ${part})`);
    const newest = () => idsOf(reader, 'select id from filestore.node_commands(500, page_size => 1)');
    expect(await newest()).toEqual([rows[0].id]);
    await finish(service, rows[0].id, 'canceled');
    expect(await newest()).toEqual([rows[0].id]);
  });

  test('finds no command for null', async () => {
    expect(await idsOf(reader, 'select id from filestore.node_commands(null)')).toEqual([]);
  });
});

describe.each(['list_commands(page_size => $1)', 'node_commands(1, page_size => $1)'])('%s', (call) => {
  test.each(['0', '-1', '100001', '2147483648', '9223372036854775807', null])(
    'refuses pages of %s entries',
    async (size) => {
      await expect(reader.query(`select filestore.${call}`, [size])).rejects.toMatchObject({
        ...refusal('FS422', `page_size cannot be ${size}`),
        hint: expect.stringContaining('from 1 to 100000'),
        constraint: 'limit_check',
      });
    },
  );

  test('accepts pages of 100000 entries', async () => {
    await expect(reader.query(`select filestore.${call}`, [100_000])).resolves.toBeDefined();
  });
});

test('a batch may be as large as its type allows', async () => {
  const { rows } = await service.query('select filestore.fold_rollups(2147483647) as folded');
  expect(rows).toEqual([{ folded: 0 }]);
});
