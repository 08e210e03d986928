import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let mount: Mount;
let file: string;
let entry: string;

beforeAll(async () => {
  service = await connectAs('service');
});

beforeEach(async () => {
  mount = await createMount(service);
  file = await createNode(service, mount, mount.rootId, 'f');
  entry = (await one(service, "select ((filestore.begin_command('x')).entry).id")).id;
});

const numbers = (count: number, number: string) =>
  `jsonb_build_object('a', (select jsonb_agg('${number}'::jsonb) from generate_series(1, ${count})))`;

/** 48 kB as PostgreSQL stores it, but 524 MB as text. */
const LARGE = numbers(4000, '1e131071');
/** 65 MB as text. */
const SMALL = numbers(4000, '1e-16383');
/** 64 MB as text, in zeros behind the point. */
const ZEROS = numbers(4000, `1.${'0'.repeat(16_000)}`);

/** Every way in which a service writes a column of jsonb, by table and column. */
const WRITERS: Readonly<Record<string, (value: string) => readonly string[]>> = {
  'backend_mounts.config': (value) => [setting('config', value)],
  'backend_mounts.access_policy': (value) => [setting('access_policy', value)],
  'backend_mounts.labels': (value) => [setting('labels', value)],
  'journal_entries.parameters': (value) => [`select filestore.begin_command('x', ${value})`],
  'journal_entries.result': (value) => [
    `select filestore.finish_command(${entry}, 'succeeded', result => ${value})`,
    `update filestore.journal_entries set status = 'succeeded', result = ${value} where id = ${entry}`,
  ],
  'journal_entries.error': (value) => [
    `select filestore.finish_command(${entry}, 'failed', error => ${value})`,
    `select filestore.finish_command(${entry}, 'canceled', error => ${value})`,
  ],
  'nodes.metadata': (value) => [
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, metadata)
     values (${mount.id}, ${mount.rootId}, 'g', 'file', ${value})`,
    `update filestore.nodes set metadata = ${value} where id = ${file}`,
    `select filestore.create_node(${mount.rootId}, 'g', metadata => ${value})`,
    `select filestore.create_nodes(jsonb_build_array(jsonb_build_object(
       'parent_id', ${mount.rootId}::bigint, 'name', 'g', 'metadata', ${value})))`,
    `select filestore.upsert_file(m.mount_key, p, metadata => ${value})
     from filestore.backend_mounts m, unnest('{f,g}'::text[]) p where m.id = ${mount.id}`,
    `select filestore.merge_metadata(${file}, ${value})`,
  ],
};

const setting = (column: string, value: string) =>
  `update filestore.backend_mounts set ${column} = ${value} where id = ${mount.id}`;

test('every column of jsonb that a service can write is listed here', async () => {
  const columns = await service.query(
    `select c.relname || '.' || a.attname as name
     from pg_attribute a
     join pg_class c on c.oid = a.attrelid
     where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r'
       and a.atttypid in ('jsonb'::regtype, 'json'::regtype)
       and has_column_privilege(c.oid, a.attnum, 'insert, update')
     order by 1`,
  );
  expect(columns.rows.map(({ name }) => name)).toEqual(Object.keys(WRITERS).sort());
});

describe.each(Object.keys(WRITERS))('%s', (column) => {
  const size = column.startsWith('journal_entries') ? 1_048_576 : 65_536;

  test.each([
    ['large numbers', LARGE],
    ['numbers near zero', SMALL],
    ['numbers with many zeros', ZEROS],
    // Each character is written as six.
    ['control characters', `jsonb_build_object('a', repeat(chr(1), ${Math.floor(size / 6)}))`],
  ])('refuses %s that take little room, but are long as text', async (_, value) => {
    for (const statement of WRITERS[column]?.(value) ?? []) {
      await expect(service.query(statement), statement).rejects.toMatchObject({
        code: expect.stringMatching(/^(FS422|23514)$/),
        constraint: expect.stringMatching(/_(size|metadata)_check$/),
        hint: expect.stringMatching(/65536 bytes|1 MiB/),
        detail: undefined,
      });
    }
  });

  const levels = column.startsWith('backend_mounts') ? 32 : 500;
  const nested = (depth: number) => `(repeat('{"a":', ${depth}) || '1' || repeat('}', ${depth}))::jsonb`;

  test('refuses levels that the readers of other languages cannot follow', async () => {
    for (const depth of [levels + 1, 9_000]) {
      for (const statement of WRITERS[column]?.(nested(depth)) ?? []) {
        await expect(service.query(statement), statement).rejects.toMatchObject({
          code: expect.stringMatching(/^(FS422|23514)$/),
          constraint: expect.stringMatching(/_(size|depth|metadata)_check$/),
          hint: expect.stringContaining(`${levels} levels`),
        });
      }
    }
  });

  test('takes the levels that are allowed', async () => {
    for (const statement of WRITERS[column]?.(nested(levels)) ?? []) {
      await service.query('begin');
      await expect(service.query(statement), statement).resolves.toBeDefined();
      await service.query('rollback');
    }
  });

  test('takes a value whose text has the size that is allowed, with numbers in it', async () => {
    const value = `jsonb_build_object('a', repeat('x', ${size - 24}), 'b', 12345.50)`;
    for (const statement of WRITERS[column]?.(value) ?? []) {
      await service.query('begin');
      await expect(service.query(statement), statement).resolves.toBeDefined();
      await service.query('rollback');
    }
  });
});

describe('is_small_json', () => {
  test.each([
    ['{"a": 1}', 8, true],
    ['{"a": 1}', 7, false],
    ['"ü"', 4, true],
    ['"ü"', 3, false],
    ['1e131071', 131_072, true],
    ['1e131071', 131_071, false],
    [null, 1, null],
  ])('measures the text of %s against %i bytes: %s', async (value, bytes, small) => {
    expect(await one(database(), 'select filestore.is_small_json($1, $2) as small', [value, bytes])).toEqual({
      small,
    });
  });

  test('says whether many numbers fit', async () => {
    const fits = (count: number) =>
      one(
        database(),
        `select filestore.is_small_json(jsonb_agg(1), 3000) as small from generate_series(1, ${count})`,
      );
    expect(await fits(1000)).toEqual({ small: true });
    expect(await fits(1001)).toEqual({ small: false });
  });

  test('counts the levels of a value that is stored compressed', async () => {
    await service.query(
      `create temp table stored as select (repeat('[', 600) || repeat(']', 600))::jsonb as value`,
    );
    expect(await one(service, 'select filestore.is_small_json(value, 65536) as small from stored')).toEqual({
      small: false,
    });
  });

  test('does not build a text of more than the gigabyte that PostgreSQL can hold', async () => {
    const value = numbers(16_000, '1e131071');
    expect(await one(database(), `select filestore.is_small_json(${value}, 1048576) as small`)).toEqual({
      small: false,
    });
  });
});

describe('a length is checked before the content', () => {
  test.each([
    ['a path', "filestore.canonical_path(repeat('../', 2000))", 'nodes_path_length_check'],
    [
      'a path of many names',
      "filestore.canonical_path(repeat('a/', 2000) || chr(1))",
      'nodes_path_length_check',
    ],
    [
      'a path that would become short',
      "filestore.canonical_path(repeat('./', 2049))",
      'nodes_path_length_check',
    ],
    [
      'a command',
      "filestore.begin_command('x', idempotency_key => repeat('x', 1024))",
      'journal_entries_idempotency_key_check',
    ],
  ])('of %s', async (_, call, constraint) => {
    await expect(service.query(`select ${call}`)).rejects.toMatchObject({ code: 'FS422', constraint });
  });

  test.each([
    ['a name', "filestore.check_name(repeat('/', 1025))", 'has 1025 bytes'],
    ['a checksum', "filestore.canonical_checksum(repeat('!', 1025))", 'has 1025 bytes'],
    ['an algorithm', "filestore.canonical_checksum('ab', repeat('!', 1025))", 'its algorithm 1025'],
  ])('of %s', async (_, call, message) => {
    await expect(service.query(`select ${call}`)).rejects.toMatchObject({
      code: 'FS422',
      message: expect.stringContaining(message),
    });
  });

  test('in every check constraint that matches a pattern', async () => {
    const checks = await database().query<{ name: string; definition: string }>(
      `select c.conname as name, pg_get_constraintdef(c.oid) as definition from pg_constraint c
       where c.connamespace = 'filestore'::regnamespace and c.contype = 'c' and pg_get_constraintdef(c.oid) ~ '~'`,
    );
    expect(checks.length).toBeGreaterThan(3);
    for (const { name, definition } of checks)
      expect(definition.split('~')[0], name).toContain('octet_length');
  });

  test('while a path with more slashes than its limit is taken', async () => {
    const path = `/${'a/'.repeat(1299)}a/`;
    expect(await one(service, 'select filestore.canonical_path($1) as path', [`//${path}//./`])).toEqual({
      path: path.slice(1, -1),
    });
  });
});
