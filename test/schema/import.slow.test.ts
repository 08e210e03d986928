import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { asAdmin, databasesForEachTest, type TestDatabase } from '../support/databases/test-database.ts';
import { mulberry32 } from '../support/mulberry32.ts';
import { one } from '../support/rows/nodes.ts';
import { createImportMount } from '../support/rows/staged.ts';

const createDatabase = databasesForEachTest();

const KEY = 'imported';

/** Changes the catalogue at random: refusals, such as a name that is taken, change nothing. */
async function change(source: TestDatabase, random: () => number): Promise<void> {
  const nodes = await source.query<{ id: string; kind: string; live: boolean }>(
    'select id, kind, live from filestore.nodes where parent_id is not null order by id',
  );
  const any = (rows: typeof nodes) => rows[Math.floor(random() * rows.length)]?.id ?? null;
  const root = (await one(source, 'select id from filestore.nodes where parent_id is null')).id as string;
  const directory = () =>
    random() < 0.3 ? root : (any(nodes.filter(({ kind, live }) => kind === 'directory' && live)) ?? root);
  const live = any(nodes.filter((node) => node.live));
  const dead = any(nodes.filter((node) => !node.live));
  const name = `n${Math.floor(random() * 12)}`;
  const choice = random();
  const statement: [text: string, values: unknown[]] =
    choice < 0.3
      ? [
          'select filestore.create_node($1, $2, $3)',
          [directory(), name, random() < 0.4 ? 'directory' : 'file'],
        ]
      : choice < 0.5
        ? ["update filestore.nodes set size_bytes = size_bytes + 1 where id = $1 and kind = 'file'", [live]]
        : choice < 0.75
          ? ['select filestore.move_node($1, $2, $3)', [live, directory(), name]]
          : choice < 0.88
            ? ['select filestore.delete_node($1, recursive => true)', [live]]
            : choice < 0.95
              ? ['select filestore.restore_node($1, with_tree => true)', [dead]]
              : ["update filestore.nodes set state = 'missing' where id = $1 and state = 'active'", [live]];
  await source.query(...statement).catch(() => undefined);
}

/** Stages the whole catalogue of one database in another. */
async function stageFrom(source: TestDatabase, target: TestDatabase): Promise<void> {
  await target.query('drop schema if exists old cascade; create schema old');
  for (const [table, statement] of [
    [
      'nodes',
      `select id, parent_id, name, case when not live then path end as path, kind, state, version, size_bytes, created_at, updated_at, deleted_at
       from filestore.nodes`,
    ],
    [
      'versions',
      `select id, version, valid_from as updated_at, path, parent_id, state, deleted_at, size_bytes from filestore.snapshots`,
    ],
  ] as const) {
    const { rows } = await one(source, `select coalesce(jsonb_agg(t), '[]') as rows from (${statement}) t`);
    const columns =
      table === 'nodes'
        ? 'id bigint, parent_id bigint, name text, path text, kind text, state text, version integer, size_bytes bigint, created_at timestamptz, updated_at timestamptz, deleted_at timestamptz'
        : 'id bigint, version integer, updated_at timestamptz, path text, parent_id bigint, state text, deleted_at timestamptz, size_bytes bigint';
    await target.query(`create table old.${table} (${columns})`);
    await target.query(
      `insert into old.${table} select * from jsonb_populate_recordset(null::old.${table}, $1)`,
      [JSON.stringify(rows)],
    );
  }
}

const CALL = `call filestore.import_nodes('${KEY}', 'old.nodes', 'old.versions', batch => 7)`;

/** Ends an import at a random moment, when it has committed part of its batches, none, or all. */
async function importKilled(target: TestDatabase, random: () => number): Promise<void> {
  const importer = await target.connect();
  const { rows } = await importer.query('select pg_backend_pid() as pid');
  const ended = importer.query(CALL).catch(() => undefined);
  await setTimeout(random() * 150);
  await asAdmin((admin) => admin.query('select pg_terminate_backend($1)', [rows[0].pid]));
  await ended;
  expect(await target.query('select * from filestore.check_integrity()')).toEqual([]);
}

const contentsOf = async (database: TestDatabase) => ({
  nodes: await database.query(
    `select n.id, n.path, n.state, n.version, n.size_bytes, n.created_at, n.updated_at, n.deleted_at, case when p.parent_id is not null then p.id end as parent
     from filestore.nodes n join filestore.nodes p on p.id = n.parent_id order by n.id`,
  ),
  versions: await database.query(
    `select id, version, valid_from, valid_to, path, live, state, size_bytes from filestore.snapshots
     where parent_id is not null order by id, version`,
  ),
});

test.each([1, 2, 3, 4, 5, 6])(
  'passes that are killed, and continue, end with the nodes and history of a catalogue that changes (seed %s)',
  { timeout: 300_000 },
  async (seed) => {
    const random = mulberry32(seed);
    const [source, target] = [await createDatabase(), await createDatabase()];
    await one(
      source,
      "insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('old', 's3', 'old') returning id",
    );
    await createImportMount(target, KEY);
    for (let pass = 1; pass <= 8; pass += 1) {
      for (let step = 0; step < 40; step += 1) await change(source, random);
      await stageFrom(source, target);
      const faults = await target.query(
        `select id, reason, problem from filestore.check_import('${KEY}', 'old.nodes', 'old.versions')`,
      );
      expect(faults, `pass ${pass}`).toEqual([]);
      await importKilled(target, random);
      await target.query(CALL);
      expect(await contentsOf(target), `pass ${pass}`).toEqual(await contentsOf(source));
      expect(await target.query('select * from filestore.check_integrity()'), `pass ${pass}`).toEqual([]);
    }
  },
);
