import { beforeEach, describe, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { createMount, type Mount, type Sql } from '../support/rows/nodes.ts';
import { keyOf, type Writers, writersOn } from '../support/rows/writer-functions.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();

const WRITERS = 6;
const FILES = 200;
const BATCH = 100;

let mount: Mount;
let key: string;

beforeEach(async () => {
  mount = await createMount(database());
  key = await keyOf(database(), mount.id);
});

interface Round {
  readonly sql: Sql;
  readonly writers: Writers;
  readonly directoryId: string;
  readonly name: string;
}

const createFiles = ({ sql, directoryId, name }: Round) =>
  sql.query(
    `select count(*) from filestore.create_nodes((
       select jsonb_agg(jsonb_build_object('parent_id', $1::bigint, 'name', $2 || '-' || g)) from generate_series(1, $3) g
     ))`,
    [directoryId, name, FILES],
  );

/** Each statement creates many times as many files as a batch removes. */
const ROUNDS: Readonly<Record<string, (round: Round) => Promise<unknown>>> = {
  'create files': createFiles,
  'create and delete files': async (round) => {
    await createFiles(round);
    await round.sql.query(
      "update filestore.nodes set state = 'deleted' where parent_id = $1 and live and name like $2",
      [round.directoryId, `${round.name}-%`],
    );
  },
  'create directories with files': async (round) => {
    const { id } = await round.writers.create(round.directoryId, round.name, 'directory');
    await createFiles({ ...round, directoryId: id });
  },
};

describe('erase_mount ends', () => {
  test.each(Object.entries(ROUNDS))('although six writers %s all the time', async (_, round) => {
    let isErased = false;
    const created: number[] = [];
    const write = async (number: number) => {
      const sql = await database().connect();
      const writers = writersOn(sql);
      const { id: directoryId } = await writers.ensure(key, `writer-${number}`);
      let count = 0;
      while (!isErased) {
        count += 1;
        await round({ sql, writers, directoryId, name: `f${count}` }).catch(() => undefined);
        created[number] = count;
      }
    };
    const writing = Array.from({ length: WRITERS }, (_, number) => write(number));
    await until(() => Object.keys(created).length === WRITERS);
    await database().query("update filestore.backend_mounts set state = 'inactive' where id = $1", [
      mount.id,
    ]);
    const eraser = await database().connect();
    try {
      await eraser.query('call filestore.erase_mount($1, $2)', [key, BATCH]);
    } finally {
      isErased = true;
      await Promise.all(writing);
    }
    const left = await database().query(
      `select 'node' as what from filestore.nodes where backend_mount_id = $1
       union all select 'mount' from filestore.backend_mounts where id = $1`,
      [mount.id],
    );
    expect(left).toEqual([]);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });
});
