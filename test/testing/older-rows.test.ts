import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { verifySchema } from '../../src/index.ts';
import { makeOlder } from '../../src/testing/make-older.ts';
import { serviceDatabasesForEachTest } from '../support/databases/service-databases.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import {
  createDirectory,
  createMount,
  createNode,
  deleteNode,
  type Mount,
  one,
} from '../support/rows/nodes.ts';

const DAY_MS = 86_400_000;
const database = databaseForEachTest();

let client: Client;
let mount: Mount;
let file: string;
let deleted: string;

/** Writes rows with moments of every kind. */
beforeEach(async () => {
  client = await database().connect();
  mount = await createMount(client);
  const directory = await createDirectory(client, mount, mount.rootId, 'd');
  file = await createNode(client, mount, directory, 'f');
  deleted = await createNode(client, mount, directory, 'deleted');
  await client.query(
    "update filestore.nodes set size_bytes = 7, last_modified_at = '2024-05-05T05:05:05.123Z' where id = $1",
    [file],
  );
  await deleteNode(client, deleted);
  await client.query('select filestore.record_sightings($1, clock_timestamp(), clock_timestamp())', [[file]]);
  await client.query(
    "select filestore.finish_command((b.entry).id, 'succeeded') from filestore.begin_command('x') b",
  );
});

/** The moments of each column that has any, in their order, in milliseconds. */
async function readMoments(): Promise<Readonly<Record<string, readonly number[]>>> {
  const { rows: columns } = await client.query<{ table: string; column: string }>(
    `select c.oid::regclass::text as table, quote_ident(a.attname) as column
     from pg_attribute a join pg_class c on c.oid = a.attrelid
     where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r' and a.atttypid = 'timestamptz'::regtype
       and a.attnum > 0 and not a.attisdropped`,
  );
  const moments: Record<string, readonly number[]> = {};
  for (const { table, column } of columns) {
    const { rows } = await client.query<{ moment: Date }>(
      `select ${column} as moment from ${table} where ${column} is not null order by 1`,
    );
    if (rows.length > 0) moments[`${table}.${column}`] = rows.map(({ moment }) => moment.getTime());
  }
  return moments;
}

describe('makeOlder', () => {
  test('moves every moment that the database recorded by the same time, and no moment of a file', async () => {
    const before = await readMoments();
    await makeOlder(client, '31 days 5 ms');
    const expected = Object.entries(before).map(([column, moments]) => [
      column,
      column.endsWith('.last_modified_at') ? moments : moments.map((moment) => moment - 31 * DAY_MS - 5),
    ]);
    expect(Object.keys(before).length).toBeGreaterThan(12);
    expect(await readMoments()).toEqual(Object.fromEntries(expected));
  });

  test('moves only the given nodes, with their versions and sightings', async () => {
    const read = async (id: string) =>
      one(
        client,
        `select n.updated_at as node, min(s.valid_from) as version, max(g.last_seen_at) as sighting
         from filestore.nodes n
         join filestore.snapshots s on s.id = n.id
         left join filestore.node_sightings g on g.node_id = n.id
         where n.id = $1
         group by n.id`,
        [id],
      );
    const [fileBefore, deletedBefore] = [await read(file), await read(deleted)];
    await makeOlder(client, '1 day', [BigInt(file)]);
    const earlier = (moment: Date) => new Date(moment.getTime() - DAY_MS);
    expect(await read(file)).toEqual({
      node: earlier(fileBefore.node),
      version: earlier(fileBefore.version),
      sighting: earlier(fileBefore.sighting),
    });
    expect(await read(deleted)).toEqual(deletedBefore);
  });

  test('leaves a sound catalogue, and the triggers as they were', async () => {
    const triggers =
      "select tgrelid::regclass::text, tgname, tgenabled from pg_trigger where tgrelid::regclass::text like 'filestore.%' order by 1, 2";
    const { rows: before } = await client.query(triggers);
    await makeOlder(client, '400 days');
    const { rows: problems } = await client.query('select * from filestore.check_integrity()');
    expect(problems).toEqual([]);
    expect((await client.query(triggers)).rows).toEqual(before);
    expect(await verifySchema({ connectionString: database().url })).toMatchObject({ state: 'same' });
    const { version } = await one(
      client,
      'update filestore.nodes set size_bytes = 8 where id = $1 returning version',
      [file],
    );
    expect(version).toBe(3);
  });

  test.each(['', 'soon', '0 days', '-1 day', "1 day'; drop table x; --"])(
    'refuses the age "%s"',
    async (age) => {
      await expect(makeOlder(client, age)).rejects.toMatchObject({
        code: 'SETTINGS_INVALID',
        setting: 'age',
        message: expect.stringContaining("'31 days'"),
      });
    },
  );
});

describe('in a test database of a service,', () => {
  const create = serviceDatabasesForEachTest();

  test('what was deleted before is purged, and what is deleted afterwards stays', async () => {
    const db = await create({ level: 'operator' });
    await db.pool.query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('media', 'local', '/srv/media')",
    );
    const upsert = "select id from filestore.upsert_file('media', $1)";
    const remove = async (path: string) => {
      const { rows } = await db.pool.query(upsert, [path]);
      await db.pool.query('select filestore.delete_node($1)', [rows[0].id]);
    };
    await remove('old');
    await db.makeOlder('31 days');
    await remove('recent');
    await db.pool.query('select filestore.fold_rollups()');
    const purged = await db.pool.query("select filestore.purge_deleted('30 days') as count");
    expect(purged.rows).toEqual([{ count: 1 }]);
    const { rows: left } = await db.pool.query('select path from filestore.nodes where not live');
    expect(left).toEqual([{ path: 'recent' }]);
  });
});
