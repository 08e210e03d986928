import pg, { type Client } from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { closePool, getPool } from '../../src/index.ts';
import { callForOne, type SqlFunction } from '../../src/sql/call.ts';
import { beginCommand, createNode } from '../../src/sql/index.ts';
import { parserOf } from '../../src/value-parsers.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount } from '../support/rows/nodes.ts';

const database = databaseForFile();
const oids = [16, 17, 20, 23, 25, 114, 1007, 1009, 1016, 1184, 1231, 1700, 3802];
const original = oids.map((oid) => [oid, pg.types.getTypeParser(oid)] as const);
let client: Client;
let parentId: string;

beforeAll(async () => {
  client = await database().connect();
  parentId = (await createMount(client)).rootId;
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
});
afterAll(async () => {
  await closePool();
  vi.unstubAllEnvs();
});
// What another library in the process may do.
beforeEach(() => {
  for (const oid of oids) pg.types.setTypeParser(oid, () => 'changed');
});
afterEach(() => {
  for (const [oid, parser] of original) pg.types.setTypeParser(oid, parser);
  pg.defaults.binary = false;
});

describe('after a library has changed the parsers of the process', () => {
  test('typed calls return the types that they declare, on any client of pg', async () => {
    const other = new pg.Pool({ connectionString: database().url, max: 1 });
    try {
      for (const own of [client, other, getPool()]) {
        const name = `file ${String(own === client)} ${String(own === other)}`;
        const metadata = { dpi: 300 };
        const node = await createNode(own, { parentId, name, sizeBytes: 2n ** 60n, metadata });
        expect(node).toMatchObject({
          name,
          parent_id: parentId,
          size_bytes: '1152921504606846976',
          version: 1,
        });
        expect(node).toMatchObject({ live: true, metadata, created_at: expect.any(Date) });
        const { is_new, entry } = await beginCommand(own, { command: 'look' });
        expect(is_new).toBe(true);
        expect(entry).toMatchObject({ affected_node_ids: [], parameters: {} });
      }
    } finally {
      await other.end();
    }
  });

  test("rows of the package's pool have the types of rows", async () => {
    await createNode(client, { parentId, name: 'in the pool' });
    const { rows } = await getPool().query("select * from filestore.nodes where name = 'in the pool'");
    expect(rows).toMatchObject([
      { parent_id: parentId, version: 1, live: true, metadata: {}, created_at: expect.any(Date) },
    ]);
  });

  test('the pool uses the parsers of the process for types that rows do not have', async () => {
    const before = pg.types.getTypeParser(1186);
    pg.types.setTypeParser(1186, () => 'an interval');
    try {
      const { rows } = await getPool().query("select '1 day'::interval as age");
      expect(rows).toEqual([{ age: 'an interval' }]);
    } finally {
      pg.types.setTypeParser(1186, before);
    }
  });
});

test('a typed call on a client that asks for binary values is an error that says so', async () => {
  const config = { connectionString: database().url, binary: true };
  const other = new pg.Client(config);
  await other.connect();
  try {
    await expect(createNode(other, { parentId, name: 'binary' })).rejects.toThrow(
      /option "binary" is not set/,
    );
  } finally {
    await other.end();
  }
});

/** A value as a typed call returns it. */
async function parsedValue(expression: string, type: string): Promise<unknown> {
  await client.query(
    `drop function if exists filestore.sample();
     create function filestore.sample() returns ${type} language sql as $$ select (${expression})::${type} $$`,
  );
  const called: SqlFunction = { name: 'sample', result: 'value', parameters: {} };
  return callForOne(client, called, {});
}

describe('a value is parsed:', () => {
  const local = (...parts: readonly [number, number, number, number?, number?]) =>
    new Date(...(parts as [number, number, number]));

  test.each<[type: string, text: string, value: unknown]>([
    ['boolean', 'true', true],
    ['boolean', 'false', false],
    ['smallint', '-7', -7],
    ['integer', '2147483647', 2_147_483_647],
    ['bigint', '-9223372036854775808', '-9223372036854775808'],
    ['numeric', '1.50', '1.50'],
    ['real', '1.5', 1.5],
    ['double precision', '-Infinity', Number.NEGATIVE_INFINITY],
    ['oid', '4000000000', 4_000_000_000],
    ['text', '{"é"', '{"é"'],
    ['name', 'a', 'a'],
    ['uuid', '11111111-2222-3333-4444-555555555555', '11111111-2222-3333-4444-555555555555'],
    ['xid8', '18446744073709551615', '18446744073709551615'],
    ['json', '[1, {"a": null}]', [1, { a: null }]],
    ['jsonb', '"text"', 'text'],
    ['bytea', '\\x00ff5c', Buffer.from([0, 255, 92])],
    ['date', '2026-02-28', local(2026, 1, 28)],
    ['timestamp', '2026-01-02 03:04:05', new Date(2026, 0, 2, 3, 4, 5)],
    ['timestamptz', '2026-01-02 03:04:05.678901+05:30', new Date('2026-01-01T21:34:05.678Z')],
    ['timestamptz', '2026-01-02 03:04:05Z', new Date('2026-01-02T03:04:05.000Z')],
    ['timestamptz', '2026-01-02 03:04:05.05Z', new Date('2026-01-02T03:04:05.050Z')],
    ['timestamptz', '0070-01-01 00:00:00Z', new Date('0070-01-01T00:00:00.000Z')],
    ['timestamptz', '12345-01-01 00:00:00Z', new Date('+012345-01-01T00:00:00.000Z')],
    ['timestamptz', '0044-03-15 12:00:00Z BC', new Date('-000043-03-15T12:00:00.000Z')],
    ['timestamptz', 'infinity', Number.POSITIVE_INFINITY],
    ['timestamptz', '-infinity', Number.NEGATIVE_INFINITY],
    ['bigint[]', '{1,NULL,9007199254740993}', ['1', null, '9007199254740993']],
    ['bigint[]', '{}', []],
    ['integer[]', '[0:1]={1,2}', [1, 2]],
    [
      'integer[]',
      '{{1,2},{3,NULL}}',
      [
        [1, 2],
        [3, null],
      ],
    ],
    [
      'text[]',
      '{a,"","NULL",null,"a,b","{}","q\\"\\\\",  "é\n"}',
      ['a', '', 'NULL', null, 'a,b', '{}', 'q"\\', 'é\n'],
    ],
    ['numeric[]', '{1.50}', ['1.50']],
    ['boolean[]', '{t,f}', [true, false]],
    ['jsonb[]', '{"{\\"a\\": [1]}"}', [{ a: [1] }]],
    ['timestamptz[]', '{"2026-01-02 03:04:05Z"}', [new Date('2026-01-02T03:04:05.000Z')]],
    ['uuid[]', '{11111111-2222-3333-4444-555555555555}', ['11111111-2222-3333-4444-555555555555']],
    ['xid8[]', '{7}', ['7']],
    ['filestore.node_kind', 'file', 'file'],
  ])('%s %s', async (type, text, value) => {
    expect(await parsedValue(`$v$${text}$v$`, type)).toEqual(value);
  });

  test('bytea also with bytea_output = escape', async () => {
    await client.query('set bytea_output = escape');
    expect(await parsedValue("'\\x00ff5c41'", 'bytea')).toEqual(Buffer.from([0, 255, 92, 65]));
    await client.query('reset bytea_output');
  });

  test.each(['Europe/Berlin', 'Asia/Kolkata', 'America/St_Johns'])(
    'a moment in any zone: %s',
    async (zone) => {
      await client.query(`set timezone = '${zone}'`);
      for (const moment of [
        '1850-06-01T12:00:00.000Z',
        '2026-07-01T12:34:56.789Z',
        '2026-01-01T00:00:00.000Z',
      ]) {
        expect(await parsedValue(`'${moment}'`, 'timestamptz')).toEqual(new Date(moment));
      }
      await client.query('reset timezone');
    },
  );

  test('a moment in another format of dates is an error, and no wrong moment', async () => {
    await client.query("set datestyle = 'SQL, DMY'");
    await expect(parsedValue("'2026-01-02 03:04:05Z'", 'timestamptz')).rejects.toThrow(
      /Set its DateStyle to ISO/,
    );
    await client.query('reset datestyle');
  });
});

test('the pool gets values as text, also if the process asks pg for binary ones', async () => {
  await closePool();
  pg.defaults.binary = true;
  const { rows } = await getPool().query(
    "select $1::bigint as id, true as live, '{}'::jsonb as metadata",
    [7],
  );
  expect(rows).toEqual([{ id: '7', live: true, metadata: {} }]);
});

test("the pool's moments are right, whatever format of dates the database has", async () => {
  await database().query(`alter database ${database().name} set datestyle = 'SQL, DMY'`);
  await closePool();
  const { rows } = await getPool().query("select '2026-01-02 03:04:05Z'::timestamptz as moment");
  expect(rows).toEqual([{ moment: new Date('2026-01-02T03:04:05Z') }]);
});

test('every type that a row or a function of the schema returns has a parser', async () => {
  for (const [oid, parser] of original) pg.types.setTypeParser(oid, parser);
  const types = await database().query<{ oid: string; name: string }>(
    `with recursive returned (oid) as (
       select a.atttypid from pg_attribute a join pg_class c on c.oid = a.attrelid
       where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0 and not a.attisdropped
       union
       select o.type
       from filestore.access_rights('operator') r
       join pg_proc p on p.oid = r.object::regprocedure
       cross join lateral (
         select p.prorettype
         union all
         select a.type from unnest(p.proallargtypes, p.proargmodes) a (type, mode) where a.mode <> 'i'
       ) o (type)
       where r.kind = 'function'
       union
       select t.typbasetype from returned r join pg_type t on t.oid = r.oid where t.typtype = 'd'
     )
     select t.oid::text, format_type(t.oid, null) as name
     from returned r join pg_type t on t.oid = r.oid
     -- Rows declare an interval as unknown.
     where t.typtype = 'b' and t.typname <> 'interval' and not (t.typcategory = 'A' and t.typnamespace = 'filestore'::regnamespace)`,
  );
  expect(types.length).toBeGreaterThan(8);
  expect(types.filter(({ oid }) => parserOf(Number(oid)) === undefined).map(({ name }) => name)).toEqual([]);
});

describe('a Date', () => {
  const zone = process.env.TZ;
  afterEach(() => {
    if (zone === undefined) delete process.env.TZ;
    else process.env.TZ = zone;
  });

  test.each([
    ['Africa/Monrovia', '1930-01-01T12:34:56.789Z'],
    ['Asia/Kathmandu', '1900-06-01T00:00:00.000Z'],
    ['Europe/Amsterdam', '0050-03-04T05:06:07.008Z'],
  ])('is the same moment in SQL where the zone of the process is %s: %s', async (timeZone, moment) => {
    process.env.TZ = timeZone;
    const node = await createNode(client, {
      parentId,
      name: `in ${timeZone}`.replace('/', ' '),
      lastModifiedAt: new Date(moment),
    });
    const { rowCount } = await client.query(
      'select from filestore.nodes where id = $1 and last_modified_at = $2::timestamptz',
      [node.id, moment],
    );
    expect(rowCount).toBe(1);
  });
});
