import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import {
  BUILD_INDEX,
  createItems,
  findIndex,
  leaveInvalidIndex,
  pidOf,
  startReport,
  timesRecorded,
  untilBlocked,
} from '../support/databases/concurrent-index.ts';
import { createDatabase, databaseForEachTest } from '../support/databases/test-database.ts';
import { eventsOf, startRun } from '../support/processes/run-copy.ts';
import { until } from '../support/until.ts';

const database = databaseForEachTest();
/** For runs that must succeed at the first attempt. */
const IMPATIENT = { lockTimeoutMs: 1_000, lockWaitMs: 0 };
let copy: PackageCopy;

beforeEach(async () => {
  copy = copyPackage();
  await createItems(database());
});
afterEach(() => copy.remove());

const NAME = 'app.items_note_idx';
const leaveInvalid = () => leaveInvalidIndex(database(), 'items_note_idx', 'app.items');

describe('before it builds an index, a run drops', () => {
  test('the invalid index with that schema and name, and no other', async () => {
    await database().query('create schema other; create table other.items as select note from app.items');
    const ofOtherSchema = await leaveInvalidIndex(database(), 'items_note_idx', 'other.items');
    await database().query('create table app.more as select note from app.items');
    const ofOtherName = await leaveInvalidIndex(database(), 'more_note_idx', 'app.more');
    const broken = await leaveInvalid();
    const filename = copy.addMigration('items', BUILD_INDEX);
    const run = startRun(copy, database().url, { settings: IMPATIENT });
    await run.ended;

    const built = await findIndex(database(), NAME);
    expect(built).toMatchObject({ valid: true });
    expect(built?.oid).not.toBe(broken);
    expect(await findIndex(database(), 'other.items_note_idx')).toEqual({ oid: ofOtherSchema, valid: false });
    expect(await findIndex(database(), 'app.more_note_idx')).toEqual({ oid: ofOtherName, valid: false });
    expect(await timesRecorded(database(), filename)).toBe(1);
    expect(eventsOf(run, 'warning').map(({ message }) => message)).toEqual([
      `Dropped the invalid index ${NAME}, left by a failed build.`,
    ]);
  });

  test('no valid index, and no index of another schema', async () => {
    await database().query('create index items_note_idx on app.items (note)');
    const before = await findIndex(database(), NAME);
    await database().query('create schema other; create table other.items as select note from app.items');
    const ofOtherSchema = await leaveInvalidIndex(database(), 'items_note_idx', 'other.items');
    const filename = copy.addMigration('items', BUILD_INDEX);
    const run = startRun(copy, database().url, { settings: IMPATIENT });
    await run.ended;
    expect(await findIndex(database(), NAME)).toEqual(before);
    expect(await findIndex(database(), 'other.items_note_idx')).toEqual({ oid: ofOtherSchema, valid: false });
    expect(await timesRecorded(database(), filename)).toBe(1);
    expect(eventsOf(run, 'warning')).toEqual([]);
  });

  test('an index whose name needs quotes', async () => {
    const [index, table] = ['"The ""note"" (idx)"', '"My schema"."Größe.x"'];
    await database().query(`create schema "My schema"; create table ${table} as select note from app.items`);
    await leaveInvalidIndex(database(), index, table);
    copy.addMigration(
      'items',
      `--! no-transaction
-- create index concurrently if not exists another on app.items (note)
/* as unique, it failed */ CREATE INDEX
  CONCURRENTLY IF NOT EXISTS ${index} ON ${table} (note);`,
    );
    await startRun(copy, database().url, { settings: IMPATIENT }).ended;
    expect(await findIndex(database(), `"My schema".${index}`)).toMatchObject({ valid: true });
  });

  test('an index although a table with the same oid is locked in a copy of the database', async () => {
    const twin = await createDatabase();
    try {
      const worker = await twin.connect();
      await worker.query('begin; lock table filestore.nodes in share update exclusive mode');
      await database().query(
        "insert into filestore.backend_mounts (mount_key, backend_kind, bucket) values ('a', 's3', 'bucket-a'), ('b', 's3', 'bucket-b')",
      );
      await database()
        .query('create unique index concurrently nodes_note_idx on filestore.nodes (kind)')
        .catch(() => undefined);
      expect(await findIndex(database(), 'filestore.nodes_note_idx')).toMatchObject({ valid: false });
      copy.addMigration(
        'nodes',
        '--! no-transaction\ncreate index concurrently if not exists nodes_note_idx on filestore.nodes (kind);',
      );
      await startRun(copy, database().url, { settings: IMPATIENT }).ended;
      expect(await findIndex(database(), 'filestore.nodes_note_idx')).toMatchObject({ valid: true });
    } finally {
      await twin.drop();
    }
  });
});

describe('an invalid index', () => {
  test('on a table in use is dropped when the use ends; until then, the session is named', async () => {
    await leaveInvalid();
    const filename = copy.addMigration('items', BUILD_INDEX);
    const report = await startReport(database());
    const run = startRun(copy, database().url, { settings: { lockTimeoutMs: 200 } });
    const { reason } = await until(() => eventsOf(run, 'retry')[0]);
    expect(reason).toMatch(
      new RegExp(
        `${filename} cannot run yet: the invalid index ${NAME}.* cannot be dropped while its table is in use by server process ${await pidOf(report)}, role ".*", application "nightly report"`,
      ),
    );
    await report.query('commit');
    await run.ended;
    expect(await findIndex(database(), NAME)).toMatchObject({ valid: true });
  });

  test('on a table that is used for too long stays, with an error that names the session', async () => {
    await leaveInvalid();
    const filename = copy.addMigration('items', BUILD_INDEX);
    const report = await startReport(database());
    const run = startRun(copy, database().url, { settings: { lockTimeoutMs: 200, lockWaitMs: 0 } });
    await expect(run.ended).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      place: { filename },
      message: expect.stringMatching(`in use by server process ${await pidOf(report)}, .*Run this again`),
    });
    expect(await timesRecorded(database(), filename)).toBe(0);
  });

  test('does not keep a waiting run from being stopped', async () => {
    await leaveInvalid();
    const filename = copy.addMigration('items', BUILD_INDEX);
    const report = await startReport(database());
    const stop = new AbortController();
    const run = startRun(copy, database().url, { settings: { lockTimeoutMs: 0 }, signal: stop.signal });
    const pid = await untilBlocked(database(), 'drop index concurrently');
    stop.abort();
    await expect(run.ended).rejects.toMatchObject({ code: 'RUN_ABORTED', applied: [] });
    // The run's lock is released too: its server process has ended.
    await until(async () => {
      const left = await database().query('select from pg_stat_activity where pid = $1', [pid]);
      return left.length === 0;
    });
    await report.query('commit');
    await startRun(copy, database().url).ended;
    expect(await findIndex(database(), NAME)).toMatchObject({ valid: true });
    expect(await timesRecorded(database(), filename)).toBe(1);
  });

  test('that another session is building is not dropped, and is used when it is complete', async () => {
    const report = await startReport(database());
    const builder = await database().connect();
    const builderPid = await pidOf(builder);
    const build = builder.query('create index concurrently items_note_idx on app.items (note)');
    await untilBlocked(database(), 'create index concurrently');
    const half = await findIndex(database(), NAME);
    const filename = copy.addMigration('items', BUILD_INDEX);
    const run = startRun(copy, database().url);
    const { reason } = await until(() => eventsOf(run, 'retry')[0]);
    expect(reason).toMatch(
      new RegExp(`index ${NAME} is incomplete, and its table is in use by server process ${builderPid}`),
    );
    await report.query('commit');
    await build;
    await run.ended;
    expect(await findIndex(database(), NAME)).toEqual({ oid: half?.oid, valid: true });
    expect(await timesRecorded(database(), filename)).toBe(1);
  });
});

test('a unique index that fails because of duplicate rows leaves no invalid index', async () => {
  const filename = copy.addMigration(
    'items',
    '--! no-transaction\ncreate unique index concurrently if not exists items_note_idx on app.items (note);',
  );
  const run = startRun(copy, database().url);
  await expect(run.ended).rejects.toMatchObject({
    code: 'MIGRATION_FAILED',
    sqlState: '23505',
    place: { filename, statement: 1 },
    message: expect.stringMatching(/Key \(note\)=\(.*\) is duplicated/),
  });
  expect(await findIndex(database(), NAME)).toBeNull();
  expect(await timesRecorded(database(), filename)).toBe(0);
});

describe('a migration with "concurrently" that is not one statement without a transaction', () => {
  test.each([
    [
      'since it is in a transaction',
      'create index concurrently if not exists items_note_idx on app.items (note);',
    ],
    ['since it holds another statement', `${BUILD_INDEX}\nselect 1;`],
  ])('is refused by the server, %s, and the error says how to write it', async (_, sql) => {
    const filename = copy.addMigration('items', sql);
    await expect(startRun(copy, database().url).ended).rejects.toMatchObject({
      code: 'MIGRATION_FAILED',
      sqlState: '25001',
      place: { filename, statement: 1 },
      message: expect.stringMatching(/with only this statement, which begins with "--! no-transaction"/),
    });
    expect(await findIndex(database(), NAME)).toBeNull();
    expect(await timesRecorded(database(), filename)).toBe(0);
  });
});
