import { expect, test } from 'vitest';
import { one } from '../support/rows/nodes.ts';
import {
  createImportMount,
  type Fault,
  importDatabaseForEachTest,
  key,
  type Row,
  stage,
} from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const MOMENT = '2025-01-02T03:04:05.678Z';
const LATER = '2025-01-02T03:04:07.700Z';
const ENTRY: Row = {
  ...{ command: 'c', status: 'succeeded', created_at: MOMENT, started_at: MOMENT, completed_at: LATER },
};

const importAll = (mount = key) =>
  database().query(`call filestore.import_nodes('${mount}', null, null, 'old.entries', batch => 2)`);
const faults = async () =>
  (
    await database().query<Fault & Row>(
      `select * from filestore.check_import('${key}', null, null, 'old.entries')`,
    )
  ).map(({ id, reason }) => [Number(id), reason]);
const counted = () =>
  one(
    database(),
    'select nodes::int, versions::int, entries::int from filestore.imports order by id desc limit 1',
  );

test('a moment that is left out is the nearest one of the same entry', async () => {
  const none = { created_at: null, started_at: null, completed_at: null, duration_ms: null };
  const error = { code: 'EIO' };
  const rows = [
    { ...none, status: 'succeeded', created_at: MOMENT },
    { ...none, status: 'succeeded', started_at: MOMENT },
    { ...none, status: 'succeeded', completed_at: MOMENT },
    { ...none, status: 'succeeded', created_at: MOMENT, completed_at: LATER },
    { ...none, status: 'succeeded', created_at: LATER, completed_at: MOMENT },
    { ...none, status: 'succeeded', started_at: MOMENT, completed_at: LATER },
    { ...none, status: 'failed', error, created_at: MOMENT },
    { ...none, status: 'failed', error, created_at: MOMENT, completed_at: LATER },
    { ...none, status: 'canceled', started_at: MOMENT, completed_at: LATER, duration_ms: 1 },
  ].map((row, index) => ({ ...row, id: 1 + index, command: 'c' }));
  await stage(database(), 'entries', rows);
  expect(await faults()).toEqual([]);
  await importAll();
  const [at, later] = [new Date(MOMENT), new Date(LATER)];
  expect(
    (
      await database().query(
        "select created_at, started_at, completed_at, duration_ms::int from filestore.journal_entries where command = 'c' order by id",
      )
    ).map((row) => [row.created_at, row.started_at, row.completed_at, row.duration_ms]),
  ).toEqual([
    [at, at, at, 0],
    [at, at, at, 0],
    [at, at, at, 0],
    [at, at, later, 2022],
    [later, at, at, 0],
    [at, at, later, 2022],
    [at, null, at, null],
    [at, null, later, null],
    [at, at, later, 1],
  ]);
  expect(await counted()).toEqual({ nodes: 0, versions: 0, entries: rows.length });
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});

test('an entry without any moment has the present one', async () => {
  await stage(database(), 'entries', [{ id: 1, command: 'c', status: 'succeeded' }]);
  const { before } = await one(database(), "select date_trunc('milliseconds', clock_timestamp()) as before");
  await importAll();
  expect(
    await one(
      database(),
      `select created_at between $1 and clock_timestamp() as created, started_at = created_at as started,
              completed_at = created_at as completed, duration_ms::int from filestore.journal_entries where id = 1`,
      [before],
    ),
  ).toEqual({ created: true, started: true, completed: true, duration_ms: 0 });
  expect(await faults()).toEqual([[1, 'journal_entries_pkey']]);
});

test('an entry that is there already is left alone, unless its command, status, moment or mount is another one', async () => {
  const rows = [1, 2, 3, 4].map((id) => ({ ...ENTRY, id, principal: 'ada' }));
  await stage(database(), 'entries', rows);
  await importAll();
  await createImportMount(database(), 'other');
  await stage(database(), 'entries', [{ ...ENTRY, id: 5 }]);
  await importAll('other');
  await stage(database(), 'entries', [
    // Whatever else is different, an ended entry does not change.
    { ...rows[0], principal: 'eve', completed_at: MOMENT },
    { ...rows[1], command: 'd' },
    { ...rows[2], status: 'canceled' },
    { ...rows[3], created_at: LATER },
    { ...ENTRY, id: 5 },
    { ...ENTRY, id: 6 },
  ]);
  expect(await faults()).toEqual([2, 3, 4, 5].map((id) => [id, 'journal_entries_pkey']));
  await database().query(
    `call filestore.import_nodes('${key}', null, null, 'old.entries', take_rest => true)`,
  );
  expect(await counted()).toEqual({ nodes: 0, versions: 0, entries: 1 });
  expect(
    await database().query(
      'select distinct command, status, principal, created_at from filestore.journal_entries where id < 5',
    ),
  ).toEqual([{ command: 'c', status: 'succeeded', principal: 'ada', created_at: new Date(MOMENT) }]);
});

test('an entry is refused with the idempotency key of another one of the journal, unless that or it has failed', async () => {
  const failed = { ...ENTRY, status: 'failed', error: { code: 'EIO' } };
  const canceled = { ...ENTRY, status: 'canceled' };
  const known = [
    { ...ENTRY, id: 1, idempotency_key: 'succeeded' },
    { ...failed, id: 2, idempotency_key: 'failed' },
    { ...canceled, id: 3, idempotency_key: 'canceled' },
  ];
  await stage(database(), 'entries', known);
  await importAll();
  await one(database(), "select filestore.begin_command('c', idempotency_key => 'queued')");
  await stage(database(), 'entries', [
    ...known,
    { ...ENTRY, id: 11, idempotency_key: 'succeeded' },
    { ...ENTRY, id: 12, idempotency_key: 'failed' },
    { ...ENTRY, id: 13, idempotency_key: 'canceled' },
    { ...ENTRY, id: 14, idempotency_key: 'queued' },
    { ...ENTRY, id: 15, idempotency_key: 'succeeded', command: 'd' },
    { ...ENTRY, id: 16 },
    { ...failed, id: 17, idempotency_key: 'succeeded' },
    // Of entries that share a key, only those that have succeeded.
    { ...ENTRY, id: 21, idempotency_key: 'twice' },
    { ...ENTRY, id: 22, idempotency_key: 'twice' },
    { ...failed, id: 23, idempotency_key: 'twice' },
    { ...canceled, id: 18, idempotency_key: 'queued' },
  ]);
  expect(await faults()).toEqual([11, 14, 21, 22].map((id) => [id, 'journal_entries_idempotency_key']));
});
