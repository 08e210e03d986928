import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Client } from 'pg';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { beginCommand, createNode, finishCommand } from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, one } from '../support/rows/nodes.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);
let client: Client;
let folder: string;
/** The function of docs/service.md. */
let statusOf: (error: unknown) => number;

beforeAll(async () => {
  client = await connectAs('operator');
  folder = mkdtempSync(join(tmpdir(), 'filestore-statuses-'));
  const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'service.md'), 'utf8');
  const block = /^```ts\n((?:(?!^```)[\s\S])*function statusOf[\s\S]*?)^```$/m.exec(text)?.[1] ?? '';
  const file = join(folder, 'status-of.ts');
  writeFileSync(file, block.replace('@apphub/filestore/sql', join(PACKAGE_ROOT, 'src', 'sql', 'index.ts')));
  ({ statusOf } = await import(file));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth);

/** What a client of a service may send where it should not, as text. */
const VALUES: readonly (string | null)[] = [
  null,
  ...['', ' ', 'abc', '\0', 'a\0b', '\ud800', 'a\nb', '..', '/', 'x'.repeat(100_000)],
  ...['-1', '0', '1.5', 'NaN', 'Infinity', '1e400', '2147483648', '9223372036854775808', '9'.repeat(200_000)],
  ...[
    'maybe',
    '2024-13-45',
    '2024-02-30',
    '2024-01-01 25:00',
    '2024-01-01T00:00:00+99:00',
    '0NaN-NaN-NaNTNaN:NaN:NaN',
  ],
  ...[
    'infinity',
    '-infinity',
    '300000-01-01',
    '4800-01-01 BC',
    '99999999999-01-01',
    '2024-01-01 Nowhere/Town',
  ],
  ...[
    '1 fortnight',
    '999999999999 years',
    '1e400 days',
    '-1 day',
    '178000000 years',
    'P1X',
    '{',
    '{"a":',
    '{"a": 1e400000}',
  ],
  ...[
    'null',
    '[]',
    '{}',
    '1',
    '"text"',
    '"\\u0000"',
    '"\\ud800"',
    '{"a": "\\u0000"}',
    '[{"parent_id": {}, "name": 1}]',
  ],
  ...[nested(100), nested(7000), nested(200_000), `${'{"a":'.repeat(3000)}1${'}'.repeat(3000)}`],
  ...[
    '{1,2',
    '{abc}',
    '{{1},{2,3}}',
    '{1,NULL}',
    '[1:2147483647]={1}',
    '[5:1]={}',
    '{{{{{{{1}}}}}}}',
    '{-1,99999999999999999999}',
  ],
];

/** Sends each value, and returns what the service would answer with 500 or more. */
async function unexpected(what: string, text: string, types = VALUES): Promise<readonly string[]> {
  const found: string[] = [];
  for (const value of types) {
    const error: unknown = await client.query(text, [value]).then(
      () => undefined,
      (cause: unknown) => cause,
    );
    if (error === undefined || statusOf(error) < 500) continue;
    const { code, message } = error as { readonly code: string; readonly message: string };
    found.push(
      `${what} ${JSON.stringify(value)?.slice(0, 40)}: ${statusOf(error)} ${code} ${message.slice(0, 100)}`,
    );
  }
  return found;
}

describe('a bad value that a client sends is answered with 4xx', () => {
  test('in a typed call with values of JavaScript', async () => {
    const mount = await createMount(database());
    const { entry } = await beginCommand(client, { command: 'look' });
    const create = (args: object) => createNode(client, { parentId: mount.rootId, name: 'b', ...args });
    const deep = (depth: number) => JSON.parse(`{"a": ${nested(depth)}}`);
    for (const call of [
      () => create({ parentId: 'abc' }),
      () => create({ parentId: 1.5 }),
      () => create({ parentId: Number.NaN }),
      () => create({ sizeBytes: 2 ** 63 }),
      () => create({ sizeBytes: 1e21 }),
      () => create({ sizeBytes: -(2n ** 64n) }),
      () => create({ lastModifiedAt: new Date(Number.NaN) }),
      () => create({ lastModifiedAt: '2024-13-45' }),
      () => create({ lastModifiedAt: '2024-01-01T00:00:00+99:00' }),
      () => create({ name: 'a\0b' }),
      () => create({ name: 'a\ud800' }),
      () => create({ name: undefined }),
      () => create({ name: null }),
      () => create({ parentId: new Uint8Array([1, 2]) }),
      () => create({ metadata: { a: '\ud800' } }),
      () => create({ metadata: { '\ud800': 1 } }),
      () => create({ metadata: { a: '\0' } }),
      () => create({ metadata: deep(7000) }),
      () => create({ metadata: deep(500_000) }),
      () => create({ metadata: [] }),
      () => finishCommand(client, { entryId: entry.id, status: 'succeeded', affectedNodeIds: ['abc'] }),
    ]) {
      const error: unknown = await call().then(
        () => expect.fail(`accepted: ${call}`),
        (cause: unknown) => cause,
      );
      expect([statusOf(error), String(error), `${call}`]).toEqual([
        expect.toSatisfy((status: number) => status >= 400 && status < 500),
        expect.anything(),
        expect.anything(),
      ]);
    }
  });

  // Tens of thousands of statements.
  test('in each argument of each function', { timeout: 300_000 }, async () => {
    const rows = await database().query<{ what: string; text: string }>(
      `select p.proname || '.' || a.name as what,
              format('select from filestore.%I(%s)', p.proname, (
                select string_agg(
                  format('%I => %s::%s', o.name, case when o.place = a.place then '$1' else 'null' end, format_type(o.type, null)),
                  ', ' order by o.place
                )
                from unnest(p.proargnames[:p.pronargs], p.proargtypes::oid[]) with ordinality o (name, type, place)
              )) as text
       from filestore.access_rights('operator') r
       join pg_proc p on p.oid = r.object::regprocedure
       cross join unnest(p.proargnames[:p.pronargs]) with ordinality a (name, place)
       where r.kind = 'function' and p.prokind = 'f' and p.prorettype <> 'trigger'::regtype
       order by 1`,
    );
    expect(rows.length).toBeGreaterThan(100);
    const found: string[] = [];
    for (const { what, text } of rows) found.push(...(await unexpected(what, text)));
    expect(found).toEqual([]);
  });

  test('in each column that plain SQL may write', async () => {
    const mount = await createMount(database());
    const node = await createNode(client, { parentId: mount.rootId, name: 'a' });
    const { entry } = await beginCommand(client, { command: 'look' });
    const ids: Readonly<Record<string, string>> = {
      nodes: node.id,
      backend_mounts: mount.id,
      journal_entries: entry.id,
    };
    const columns = await database().query<{ table: string; column: string; right: string }>(
      `select distinct c.relname as table, a.attname as column, right_.privilege as right
       from pg_class c
       join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       cross join (values ('insert'), ('update')) right_ (privilege)
       where c.relname = any ($1) and c.relnamespace = 'filestore'::regnamespace
         and has_column_privilege((select usename from pg_stat_activity where pid = $2), c.oid, a.attname, right_.privilege)`,
      [Object.keys(ids), (await one(client, 'select pg_backend_pid() as pid')).pid],
    );
    expect(columns.length).toBeGreaterThan(30);
    /** The rest of a row that is accepted. */
    const rows: Readonly<Record<string, Readonly<Record<string, string>>>> = {
      nodes: { backend_mount_id: mount.id, parent_id: mount.rootId, name: "'c'", kind: "'file'" },
      backend_mounts: { mount_key: "'bad-values'", backend_kind: "'s3'", bucket: "'bad-values'" },
      journal_entries: { command: "'look'" },
    };
    const found: string[] = [];
    for (const { table, column, right } of columns) {
      const row = Object.entries({ ...rows[table], [column]: '$1' });
      const names = row.map(([name]) => name).join(', ');
      const values = row.map(([, value]) => value).join(', ');
      const text =
        right === 'insert'
          ? `insert into filestore.${table} (${names}) values (${values})`
          : `update filestore.${table} set ${column} = $1 where id = ${ids[table]}`;
      found.push(...(await unexpected(`${right} ${table}.${column}`, text)));
    }
    expect(found).toEqual([]);
  });
});

test('a connection that ends under a statement is answered with 503', async () => {
  const lost = await database().connect();
  const { pid } = await one(lost, 'select pg_backend_pid() as pid');
  const asked = lost.query('select pg_sleep(60)').catch((error: unknown) => error);
  await until(
    async () =>
      (
        await one(
          database(),
          'select count(*)::integer from pg_stat_activity where pid = $1 and wait_event = $2',
          [pid, 'PgSleep'],
        )
      ).count === 1,
  );
  await database().query('select pg_terminate_backend($1)', [pid]);
  expect(statusOf(await asked)).toBe(503);
  const closed = await database().connect();
  const pending = closed.query('select pg_sleep(60)').catch((error: unknown) => error);
  closed.connection.stream.destroy();
  expect(statusOf(await pending)).toBe(503);
});
