import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';
import { keyOf, writersOn } from '../support/rows/writer-functions.ts';

describe('when the ids of nodes are behind their table', () => {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);
  let service: Client;
  let mount: Mount;
  let key: string;

  const SEQUENCE = "pg_get_serial_sequence('filestore.nodes', 'id')";
  const lastId = async () =>
    Number((await one(database(), `select pg_sequence_last_value(${SEQUENCE}::regclass) as id`)).id);
  const problems = async () =>
    (await database().query('select problem, detail from filestore.check_integrity()')) as readonly {
      readonly problem: string;
      readonly detail: string;
    }[];

  beforeAll(async () => {
    service = await connectAs('service');
  });

  beforeEach(async () => {
    mount = await createMount(database());
    key = await keyOf(database(), mount.id);
    for (const name of ['a', 'b', 'c']) await createNode(database(), mount, mount.rootId, name);
    // As on a subscriber of logical replication, which gets rows but no sequences.
    await database().query(`select setval(${SEQUENCE}, (select min(id) from filestore.nodes))`);
  });

  const repair = () => database().query(`select setval(${SEQUENCE}, (select max(id) from filestore.nodes))`);

  test('create_node reports the primary key, not a taken name', async () => {
    await expect(writersOn(service).create(mount.rootId, 'new')).rejects.toMatchObject({
      code: '23505',
      constraint: 'nodes_pkey',
    });
    await repair();
    expect(await writersOn(service).create(mount.rootId, 'new')).toMatchObject({ path: 'new' });
  });

  test.each([
    ['create_nodes', `select from filestore.create_nodes('[{"parent_id": $1, "name": "new"}]')`],
    ['copy_tree', "select from filestore.copy_tree($2, $1, 'new')"],
    ['copy_tree with skip', "select from filestore.copy_tree($2, $1, 'new', on_conflict => 'skip')"],
  ])('%s reports the primary key too, and does not return as if it had created a node', async (_, call) => {
    const a = await one(database(), 'select id from filestore.nodes where parent_id = $1 and name = $2', [
      mount.rootId,
      'a',
    ]);
    const statement = call.replace('$1', mount.rootId).replace('$2', a.id);
    await expect(service.query(statement)).rejects.toMatchObject({ code: '23505', constraint: 'nodes_pkey' });
    await repair();
  });

  test('ensure_directory fails at once and uses only one id', async () => {
    const before = await lastId();
    await expect(writersOn(service).ensure(key, 'x/y/z')).rejects.toMatchObject({
      code: '23505',
      constraint: 'nodes_pkey',
    });
    expect((await lastId()) - before).toBe(1);
    await repair();
    expect(await writersOn(service).ensure(key, 'x/y/z')).toMatchObject({ path: 'x/y/z' });
  });

  test('check_integrity reports the table until the sequence is set', async () => {
    const found = await problems();
    expect(found.map(({ problem }) => problem)).toEqual(['sequence behind its table']);
    expect(found[0]?.detail).toMatch(/^filestore\.nodes: the next id is \d+, but row \d+ exists$/);
    await repair();
    expect(await problems()).toEqual([]);
  });
});

describe('when all ids are used', () => {
  const database = databaseForEachTest();
  const use = (table: string) =>
    database().query(
      `select setval(s.seqrelid, s.seqmax) from pg_sequence s
       where s.seqrelid = pg_get_serial_sequence('filestore.${table}', 'id')::regclass`,
    );

  test.each([
    ['nodes', `select from filestore.create_nodes('[{"parent_id": $1, "name": "new"}]')`],
    [
      'backend_mounts',
      `select from filestore.create_mount('{"mount_key": "n", "backend_kind": "s3", "bucket": "new"}')`,
    ],
  ])('of %s, batches and mounts are refused with the code of the server', async (table, call) => {
    const mount = await createMount(database());
    await use(table);
    await expect(database().query(call.replace('$1', mount.rootId))).rejects.toMatchObject({ code: '2200H' });
  });

  test.each(['nodes', 'rollup_deltas'])('of %s, check_integrity says that none is left', async (table) => {
    await use(table);
    expect(await database().query('select problem, detail from filestore.check_integrity()')).toMatchObject([
      { detail: expect.stringContaining(`${table}: 0 ids are left`) },
    ]);
  });
});

describe('set_database_number', () => {
  const database = databaseForEachTest();
  const RANGE = 2 ** 40;
  const setNumber = (number: number | null) =>
    database().query('select filestore.set_database_number($1)', [number]);

  test.each([0, 1, 7, 8191])(
    '%i makes ids start in its range, which JavaScript can represent',
    async (number) => {
      await setNumber(number);
      const mount = await createMount(database());
      const directory = await createDirectory(database(), mount, mount.rootId, 'd');
      const entry = await one(database(), "select (entry).id from filestore.begin_command('move')");
      const first = number * RANGE + 1;
      expect([mount.id, mount.rootId, directory, entry.id].map(Number)).toEqual([
        first,
        first,
        first + 1,
        first,
      ]);
      const limits = await database().query(
        `select distinct seqmin, seqmax from pg_sequence join pg_class c on c.oid = seqrelid
       where c.relnamespace = 'filestore'::regnamespace and c.relname not in ('imports_id_seq', 'rollup_deltas_id_seq')`,
      );
      expect(limits).toEqual([{ seqmin: `${first}`, seqmax: `${(number + 1) * RANGE - 1}` }]);
      expect((number + 1) * RANGE - 1).toBeLessThanOrEqual(Number.MAX_SAFE_INTEGER);
      expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    },
  );

  test('can be set again while the database is empty', async () => {
    await setNumber(3);
    await setNumber(2);
    expect(Number((await createMount(database())).id)).toBe(2 * RANGE + 1);
  });

  test.each([-1, 8192, null])('refuses %s', async (number) => {
    await expect(setNumber(number)).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'database_number_check',
      message: expect.stringContaining(`${number}`),
      hint: expect.stringContaining('8191'),
    });
  });

  test('is refused when there are rows, and changes nothing', async () => {
    await database().query("select filestore.begin_command('move')");
    await expect(setNumber(5)).rejects.toMatchObject({
      code: 'FS409',
      constraint: 'database_number_check',
      message: expect.stringContaining('journal_entries'),
    });
    expect(Number((await createMount(database())).id)).toBe(1);
  });
});
