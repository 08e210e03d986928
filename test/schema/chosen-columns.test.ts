import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { createDirectory, createMount, createNode, type Mount, one } from '../support/rows/nodes.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

const REFUSED = { code: 'FS422', constraint: 'chosen_columns_check', hint: expect.any(String) };

let service: Client;
beforeAll(async () => {
  service = await connectAs('service');
});

let mount: Mount;
let names = 0;
beforeEach(async () => {
  mount = await createMount(database());
  names += 1;
});

/** The columns that a service may give in an insert. */
const GIVEN = {
  nodes: () => `(backend_mount_id, parent_id, name, kind) overriding system value
                values (${mount.id}, ${mount.rootId}, 'f', 'file')`,
  journal_entries: () => `(command) overriding system value values ('x')`,
  backend_mounts: () => `(mount_key, backend_kind, bucket) overriding system value
                         values ('given-${names}', 's3', 'given-${names}')`,
} as const;
type Table = keyof typeof GIVEN;

const FAR = '(select max(id) + 1000 from filestore.nodes)';
const OTHER_DATABASE = '5::bigint << 40';
const CHOSEN: readonly (readonly [Table, column: string, value: string])[] = [
  ['nodes', 'id', FAR],
  ['nodes', 'id', OTHER_DATABASE],
  ['nodes', 'id', '-1'],
  ['nodes', 'id', '0'],
  ['nodes', 'created_at', "timestamptz '2001-01-01'"],
  ['nodes', 'updated_at', "timestamptz '2001-01-01'"],
  ['journal_entries', 'id', '1000000'],
  ['journal_entries', 'id', OTHER_DATABASE],
  ['backend_mounts', 'id', '0'],
  ['backend_mounts', 'id', '1000000'],
  ['backend_mounts', 'created_at', "timestamptz '2001-01-01'"],
  ['backend_mounts', 'updated_at', "timestamptz '2001-01-01'"],
  ['backend_mounts', 'version', '7'],
  ['backend_mounts', 'held_by', '-1'],
  ['backend_mounts', 'erasing_since', 'now()'],
  ['backend_mounts', 'history_horizon', 'now()'],
];

/** Inserts by a view of its role, which gives a column that the statement does not name. */
async function insertByView(client: Client, table: Table, column: string, value: string): Promise<unknown> {
  await client.query('begin');
  try {
    await client.query(`create temp view given as select * from filestore.${table}`);
    await client.query(
      `create function pg_temp.chosen() returns text language sql as $$ select (${value})::text $$`,
    );
    const { rows } = await client.query(
      `select format_type(atttypid, atttypmod) as type from pg_attribute
       where attrelid = 'filestore.${table}'::regclass and attname = $1`,
      [column],
    );
    await client.query(
      `alter view given alter column ${column} set default pg_temp.chosen()::${rows[0].type}`,
    );
    const inserted = await client.query(`insert into given ${GIVEN[table]()} returning ${column} as chosen`);
    return inserted.rows[0].chosen;
  } finally {
    await client.query('rollback');
  }
}

test.each(CHOSEN)(
  'a service cannot choose %s.%s by the default of a view: %s',
  async (table, column, value) => {
    await expect(insertByView(service, table, column, value)).rejects.toMatchObject(REFUSED);
  },
);

test('nor when the owner has restarted the sequence, and no id was drawn since', async () => {
  const { next } = await one(database(), 'select max(id) + 1 as next from filestore.nodes');
  await database().query(`alter table filestore.nodes alter column id restart with ${next}`);
  await expect(insertByView(service, 'nodes', 'id', FAR)).rejects.toMatchObject(REFUSED);
});

test('the owner can', async () => {
  const owner = await database().connect();
  expect(await insertByView(owner, 'nodes', 'created_at', "timestamptz '2001-01-01Z'")).toEqual(
    new Date('2001-01-01T00:00:00Z'),
  );
});

describe('a service inserts', () => {
  test('a node below one that the same statement creates, which takes a later id', async () => {
    const { path } = await one(
      service,
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
       select m.id, (filestore.ensure_directory(m.mount_key, 'a/b')).id, 'f', 'file'
       from filestore.backend_mounts m where m.id = $1 returning path`,
      [mount.id],
    );
    expect(path).toBe('a/b/f');
  });

  test('a copy, whose ids are all taken before its rows are inserted', async () => {
    const directory = await createDirectory(database(), mount, mount.rootId, 'd');
    for (const name of ['1', '2', '3']) await createNode(database(), mount, directory, name);
    expect(
      await one(service, "select path from filestore.copy_tree($1, $2, new_name => 'copy')", [
        directory,
        mount.rootId,
      ]),
    ).toEqual({ path: 'copy' });
  });
});

describe('a "do" block that has committed', () => {
  const later = (statement: string) => `do $$ begin perform pg_sleep(0.05); commit; ${statement}; end $$`;
  /** The moments of the file in the root, in milliseconds since before the block. */
  const momentsAfter = async (block: string) => {
    const { before } = await one(database(), 'select clock_timestamp() as before');
    await service.query(block);
    const moments = await one(
      database(),
      'select created_at, updated_at, deleted_at from filestore.nodes where parent_id = $1',
      [mount.rootId],
    );
    return Object.values(moments).map((moment) => (moment === null ? null : Number(moment) - Number(before)));
  };
  const isLate = expect.toSatisfy((milliseconds: number) => milliseconds >= 50);

  test('creates nodes at the moment of its transaction, so that a poll finds them', async () => {
    const insert = `insert into filestore.nodes (backend_mount_id, parent_id, name, kind)
                    values (${mount.id}, ${mount.rootId}, 'f', 'file')`;
    expect(await momentsAfter(later(insert))).toEqual([isLate, isLate, null]);
  });

  test('changes and deletes them at that moment too', async () => {
    const file = await createNode(database(), mount, mount.rootId, 'f');
    const created = expect.toSatisfy((milliseconds: number) => milliseconds <= 0);
    const overwrite = `update filestore.nodes set size_bytes = 3 where id = ${file}`;
    expect(await momentsAfter(later(overwrite))).toEqual([created, isLate, null]);
    expect(await momentsAfter(later(`perform filestore.delete_node(${file})`))).toEqual([
      created,
      isLate,
      isLate,
    ]);
  });
});
