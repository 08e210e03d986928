import { beforeEach, describe, expect, test } from 'vitest';
import { type MigrationEvent, runMigrations, verifySchema } from '../../src/index.ts';
import { askFunctions, jsonCommand } from '../support/command-line/answers.ts';
import { forgetLast } from '../support/databases/fleet-databases.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';

const database = databaseForEachTest();
const env = () => ({ DATABASE_URL: database().url });
const files = committedMigrations();
const last = files.at(-1) ?? '';

beforeEach(async () => {
  const mount = await createMount(database());
  await createNode(database(), mount, mount.rootId, 'kept.txt');
});

const loseHistory = () => database().query('drop schema graphile_migrate cascade');

describe('tables without a history', () => {
  test('are adopted: rows and tables stay, missing objects are created, and the result is verified', async () => {
    await loseHistory();
    await database().query(`
      drop view filestore.view_filestore_directories;
      drop function filestore.check_integrity();
      drop trigger snapshots_guard on filestore.snapshots;
      drop index filestore.nodes_checksum_idx;
      drop table filestore.rollup_deltas;
    `);
    const before = await takePicture(database());
    const events: MigrationEvent[] = [];
    const report = await runMigrations({ env: env(), onEvent: (event) => events.push(event) });
    expect(events).toContainEqual(expect.objectContaining({ type: 'plan', pending: files, adopting: true }));
    expect(report).toMatchObject({ alreadyApplied: 0, schema: { state: 'same' } });
    expect(report.applied.map(({ filename }) => filename)).toEqual(files);

    const after = await takePicture(database());
    expect(after.rows).toMatchObject(before.rows);
    const tables = before.relations.filter((line) => Object.hasOwn(before.rows, line.split(' ')[0] ?? ''));
    expect(tables.length).toBeGreaterThan(3);
    expect(after.relations).toEqual(expect.arrayContaining(tables));
    expect(await verifySchema({ env: env() })).toMatchObject({ state: 'same' });
  });

  test('are announced on the command line; what the migrations cannot correct is reported as drift', async () => {
    await loseHistory();
    await database().query('create index by_size on filestore.nodes (size_bytes)');
    const { exitCode, document, stderr } = await jsonCommand(['migrate'], database().url);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 4,
      document: {
        error: {
          code: 'SCHEMA_DRIFTED',
          differences: ['index filestore.by_size is not in the model: USING btree (size_bytes)'],
          applied: files,
        },
      },
    });
    expect(stderr).toMatch(/: \d+ migrations to apply, over existing tables without a history\n/);
    expect(await one(database(), "select count(*) from filestore.nodes where name = 'kept.txt'")).toEqual({
      count: '1',
    });
  });
});

/** Shapes that "if not exists" would skip, and the lines that report them. */
const CONFLICTS: readonly (readonly [string, string, ...string[]])[] = [
  [
    'a table of another shape',
    'alter table filestore.journal_entries alter column duration_ms type integer',
    'column filestore.journal_entries.duration_ms is integer, should be bigint',
  ],
  [
    'a table without a column and without a constraint',
    `alter table filestore.journal_entries drop column result;
     alter table filestore.access_levels drop constraint access_levels_level_check`,
    `constraint filestore.access_levels.access_levels_level_check is missing: CHECK ((level = ANY (ARRAY['reader'::text, 'service'::text, 'operator'::text])))`,
    'column filestore.journal_entries.result is missing: jsonb',
  ],
  [
    'a view instead of a table',
    'drop table filestore.snapshots cascade; create view filestore.snapshots as select 1 as node_id',
    'filestore.snapshots is a view, should be a table',
  ],
  [
    'a domain over another type, and no table at all',
    'drop schema filestore cascade; create schema filestore; create domain filestore.node_kind as integer',
    'domain filestore.node_kind is integer, should be text collate "C"',
    `constraint filestore.node_kind.node_kind_check is missing: CHECK ((VALUE = ANY (ARRAY['file'::text, 'directory'::text])))`,
  ],
];

describe('a conflict is reported, and nothing is changed:', () => {
  test.each(CONFLICTS)('%s', async (_title, change, ...conflicts) => {
    await loseHistory();
    await database().query(change);
    const before = await takePicture(database());
    const refusal = { code: 'SCHEMA_CONFLICT', conflicts };
    expect(await askFunctions(database().url)).toMatchObject({
      runMigrations: refusal,
      pendingMigrations: refusal,
      migrationStatus: { value: { state: 'empty', applied: [], pending: files } },
      verifySchema: {
        value: {
          state: 'unchecked',
          reason: expect.stringMatching(/^It lacks \d+ migrations .*db:migrate:filestore/),
        },
      },
      assertMigrated: { code: 'NOT_MIGRATED', pending: files },
    });
    expect(await takePicture(database())).toEqual(before);
  });

  test.each([[['migrate']], [['migrate', '--dry-run']]])('several at once, by %j', async (args) => {
    await loseHistory();
    const several = [...CONFLICTS.slice(0, 1), ...CONFLICTS.slice(2, 3)];
    for (const [, change] of several) await database().query(change);
    const { exitCode, document, stderr } = await jsonCommand(args, database().url);
    expect({ exitCode, document }).toMatchObject({
      exitCode: 4,
      document: {
        ok: false,
        error: { code: 'SCHEMA_CONFLICT', conflicts: several.flatMap(([, , ...conflicts]) => conflicts) },
      },
    });
    expect(stderr).toMatch(
      /^SCHEMA_CONFLICT: Schema filestore exists .*Nothing was changed.*Correct these objects, or move them to another schema/m,
    );
    expect(stderr).not.toContain('OK ');
  });
});

describe('a schema that differs from the model after migrating', () => {
  beforeEach(async () => {
    await forgetLast(database());
    await database().query('alter table filestore.nodes add column owner_hint text');
  });
  const difference = 'column filestore.nodes.owner_hint is not in the model: text';

  test('is an error that lists the applied migrations, which stay', async () => {
    const { exitCode, document, stderr } = await jsonCommand(['migrate'], database().url);
    expect(exitCode).toBe(4);
    expect(document).toMatchObject({
      ok: false,
      command: 'migrate',
      error: { code: 'SCHEMA_DRIFTED', differences: [difference], applied: [last] },
    });
    expect(stderr).toContain(`  ${difference}\n`);
    expect(stderr).toMatch(/Undo the change, or write it as a migration.*db:verify:filestore/);
    expect(stderr).toContain(`Applied and kept: ${last}.`);
  });

  test('is ignored by a second run, which has nothing to apply, and reported by verify until it is fixed', async () => {
    await expect(runMigrations({ env: env() })).rejects.toMatchObject({ code: 'SCHEMA_DRIFTED' });
    expect(await runMigrations({ env: env() })).toMatchObject({
      applied: [],
      schema: { state: 'unchecked', reason: 'nothing was applied' },
    });
    expect(await verifySchema({ env: env() })).toMatchObject({ state: 'drifted', differences: [difference] });
    await database().query('alter table filestore.nodes drop column owner_hint');
    expect(await verifySchema({ env: env() })).toMatchObject({ state: 'same' });
  });

  test('is no error for a caller that disables the comparison', async () => {
    expect(await runMigrations({ env: env(), compareSchema: false })).toMatchObject({
      applied: [{ filename: last }],
      schema: { state: 'unchecked', reason: 'it was not asked for' },
    });
  });
});
