import type { Client } from 'pg';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { callerSettings } from '../../dev/check/gates/caller-settings.ts';
import { comments } from '../../dev/check/gates/comments.ts';
import { definitions } from '../../dev/check/gates/definitions.ts';
import { foreignKeys } from '../../dev/check/gates/foreign-keys.ts';
import { generated } from '../../dev/check/gates/generated.ts';
import type { Sources } from '../../dev/sources/sources.ts';
import { readSources } from '../../dev/sources/sources.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { committedMigrations, migrationWith } from '../support/packages/committed-files.ts';
import { checkoutWith, linesOf, PASSED, packageToSpoil } from '../support/packages/spoiled-package.ts';

const database = databaseForFile();
const spoil = packageToSpoil();
const FIXTURES = 'migrations/fixtures';
/** An object that is only in the database has no file: the last migration is named. */
const UNKNOWN_PLACE = `migrations/committed/${committedMigrations().at(-1)}:null`;

let client: Client;
let sources: Sources;
beforeAll(async () => {
  client = await database().connect();
  sources = await readSources(PACKAGE_ROOT, false);
});
// The changes of a test are rolled back with its transaction.
beforeEach(async () => {
  await client.query('begin');
});
afterEach(async () => {
  await client.query('rollback');
});
const subject = () => ({ sources, client });

describe('the generated files', () => {
  test('are stale after a change of the schema', async () => {
    await client.query('drop index filestore.nodes_checksum_idx');
    expect(await linesOf(generated.evaluate(subject()))).toContainEqual(
      expect.stringMatching(/^schema\/filestore\.txt:\d+ .*nodes_checksum_idx/),
    );
  });

  test('are not checked when the chain is broken', async () => {
    const copy = spoil();
    copy.append(`migrations/committed/${committedMigrations().at(-1)}`, '\nselect 1;\n');
    expect(await generated.evaluate({ client, sources: await copy.sources() })).toMatchObject({
      state: 'not run',
    });
  });
});

describe('a comment', () => {
  test.each([
    ['table filestore.rollups', 'rollups'],
    ['column filestore.nodes.checksum', 'checksum'],
    ['view filestore.view_filestore_directories', 'views/view_filestore_directories.sql:1'],
    ['function filestore.check_limit', 'functions/check_limit.sql:1'],
    ['procedure filestore.erase_mount', 'functions/erase_mount.sql:1'],
    ['trigger nodes_guard_removal on filestore.nodes', 'triggers/nodes_guard_removal.sql:1'],
    ['index filestore.nodes_checksum_idx', 'nodes_checksum_idx'],
    ['domain filestore.node_kind', 'node_kind'],
    ['schema filestore', 'filestore'],
  ])('is reported as missing on %s', async (subjectOfComment, place) => {
    await client.query(`comment on ${subjectOfComment} is null`);
    const [line = '', ...others] = await linesOf(comments.evaluate(subject()));
    expect(others).toEqual([]);
    expect(line).toContain(`${subjectOfComment} has no comment`);
    // For an object without a fixture, the line of its definition.
    if (place.includes('.sql')) expect(line).toContain(`${FIXTURES}/${place}`);
    else {
      const [, file, number] = /^(\S+):(\d+) /.exec(line) ?? [];
      const source = sources.committed.find((candidate) => candidate.file === file);
      expect(source?.text.split('\n')[Number(number) - 1]).toContain(place);
    }
  });

  test('on a concurrent index must be in the SQL before it', async () => {
    await client.query('create index nodes_size_idx on filestore.nodes (size_bytes)');
    const index = 'create index concurrently if not exists nodes_size_idx on filestore.nodes (size_bytes);';
    const check = async (text: string) =>
      linesOf(comments.evaluate({ client, sources: await checkoutWith(text) }));
    expect(await check(`--! no-transaction\n-- Nodes by size.\n${index}`)).toEqual([]);
    expect(await check(`--! no-transaction\n--\n${index}`)).toEqual([
      'migrations/current.sql:3 index filestore.nodes_size_idx has no comment',
    ]);
    expect(await check(`-- Nodes by size.\n${index.replace('concurrently ', '')}`)).toEqual([
      'migrations/current.sql:2 index filestore.nodes_size_idx has no comment',
    ]);
  });

  test('on a column of a view is required if migrations/facts.ts names no table for it', async () => {
    for (const column of ['location', 'mount_state', 'path']) {
      await client.query(`comment on column filestore.view_filestore_active_nodes.${column} is null`);
    }
    expect(await linesOf(comments.evaluate(subject()))).toEqual([
      expect.stringContaining('column filestore.view_filestore_active_nodes.location has no comment'),
    ]);
  });

  test('is required for an object without a file too', async () => {
    await client.query('alter table filestore.nodes add column owner_hint text');
    expect(await linesOf(comments.evaluate(subject()))).toEqual([
      `${UNKNOWN_PLACE} column filestore.nodes.owner_hint has no comment`,
    ]);
  });
});

describe('a foreign key', () => {
  test('whose index is dropped is reported at its definition', async () => {
    await client.query('drop index filestore.nodes_root_key');
    const [line = '', ...others] = await linesOf(foreignKeys.evaluate(subject()));
    expect(others).toEqual([]);
    const file = migrationWith(/constraint nodes_backend_mount_fkey/);
    expect(line).toMatch(
      new RegExp(
        `^migrations/committed/${file}:\\d+ foreign key nodes_backend_mount_fkey of filestore\\.nodes`,
      ),
    );
  });

  test.each([
    ['its columns first, in any order', '(b, a, id)', true],
    ['its columns, but not first', '(id, a, b)', false],
    ['one of its columns', '(a)', false],
    ['the rows in which one is not null', '(a, b) where b is not null', true],
    ['other rows', '(a, b) where id > 1', false],
    ['summaries', 'using brin (a, b)', false],
  ])('can or cannot use an index with %s', async (_, index, served) => {
    await client.query(
      `create table filestore.referred (a int, b int, primary key (a, b));
       create table filestore.referring (id int, a int, b int,
         constraint referring_fkey foreign key (a, b) references filestore.referred);
       create index on filestore.referring ${index}`,
    );
    const found = await linesOf(foreignKeys.evaluate(subject()));
    expect(found).toEqual(served ? [] : [expect.stringContaining('foreign key referring_fkey')]);
  });
});

describe('a definition in the database', () => {
  test('matches its file in the checkout, and the check changes nothing', async () => {
    expect(await definitions.evaluate(subject())).toEqual(PASSED);
    expect(await definitions.evaluate(subject())).toEqual(PASSED);
  });

  test.each([
    [
      'a function with another body',
      `do $$ begin execute replace(pg_get_functiondef('filestore.check_limit'::regproc), 'value < 1', 'value < 2'); end $$`,
      `${FIXTURES}/functions/check_limit.sql:1 function filestore.check_limit(text, bigint, bigint) differs between`,
    ],
    [
      'a view with other options',
      'alter view filestore.view_filestore_node_versions set (security_barrier = true)',
      `${FIXTURES}/views/view_filestore_node_versions.sql:1 view filestore.view_filestore_node_versions differs between`,
    ],
    [
      'a trigger that fires at other times',
      `drop trigger nodes_refuse_truncate on filestore.nodes;
       create trigger nodes_refuse_truncate after truncate on filestore.nodes execute function filestore.refuse_truncate()`,
      `${FIXTURES}/triggers/nodes_refuse_truncate.sql:1 trigger filestore.nodes.nodes_refuse_truncate differs between`,
    ],
    [
      'a function that PUBLIC may call',
      'grant execute on function filestore.check_limit(text, bigint, bigint) to public',
      `${FIXTURES}/functions/check_limit.sql:1 privilege EXECUTE of function filestore.check_limit(text, bigint, bigint) is created by the migrations`,
    ],
    [
      'a function without a file',
      'create function filestore.added() returns int language sql return 1; revoke all on function filestore.added() from public',
      `${UNKNOWN_PLACE} function filestore.added() has no file in migrations/fixtures`,
    ],
    [
      'a view without a file',
      'create view filestore.added as select 1 as one',
      `${UNKNOWN_PLACE} view filestore.added has no file in migrations/fixtures`,
    ],
    [
      'another function of the same name',
      `create function filestore.check_limit(argument text) returns int language sql return 1;
       revoke all on function filestore.check_limit(text) from public`,
      `${FIXTURES}/functions/check_limit.sql:1 function filestore.check_limit(text) is created by the migrations`,
    ],
    [
      'a file without an object',
      'drop trigger nodes_refuse_truncate on filestore.nodes',
      `${FIXTURES}/triggers/nodes_refuse_truncate.sql:1 trigger filestore.nodes.nodes_refuse_truncate is in the file`,
    ],
  ])('is reported if it is %s', async (_, sql, expected) => {
    await client.query(sql);
    expect(await linesOf(definitions.evaluate(subject()))).toEqual([expect.stringContaining(expected)]);
  });

  test('is reported with the line if its file fails', async () => {
    const copy = spoil();
    const file = `${FIXTURES}/views/view_filestore_directories.sql`;
    copy.write(file, copy.read(file).replace('from filestore.nodes', 'from filestore.noodles'));
    const found = await linesOf(definitions.evaluate({ client, sources: await copy.sources() }));
    const line =
      copy
        .read(file)
        .split('\n')
        .findIndex((text) => text.includes('noodles')) + 1;
    expect(found).toContainEqual(
      expect.stringContaining(`${file}:${line} fails: relation "filestore.noodles"`),
    );
  });
});

const PINNED = 'set local search_path = pg_catalog, pg_temp;';

describe('a setting of the caller', () => {
  const faultsOf = async (...statements: readonly string[]) => {
    for (const statement of statements) await client.query(statement);
    return linesOf(callerSettings.evaluate(subject()));
  };

  test.each([['reset search_path'], ['set search_path = filestore, pg_catalog, pg_temp']])(
    'decides what a function calls after "%s"',
    async (change) => {
      expect(await faultsOf(`alter function filestore.lock_tree(bigint, boolean) ${change}`)).toEqual([
        expect.stringContaining(
          `${FIXTURES}/functions/lock_tree.sql:1 filestore.lock_tree(bigint,boolean) has no fixed search_path`,
        ),
      ]);
    },
  );

  test('decides what a string with a backslash means', async () => {
    const create = (body: string) =>
      `create function filestore.is_word(a text) returns boolean language plpgsql set search_path = pg_catalog, pg_temp
       as $$begin return a ~ ${body}; end$$`;
    expect(await faultsOf(create("E'\\\\yw'"))).toEqual([]);
    await client.query('drop function filestore.is_word');
    expect(await faultsOf(create("'\\yw'"))).toEqual([
      expect.stringContaining('filestore.is_word(text) has a string with a backslash'),
    ]);
  });

  test.each([
    [
      '',
      'set local search_path = pg_catalog, pg_temp; commit; set local search_path = pg_catalog, pg_temp;',
      null,
    ],
    ['a integer; b constant filestore.nodes; c bigint[] := null; d pg_catalog.text := 1;', PINNED, null],
    ['', 'commit; set local search_path = pg_catalog, pg_temp;', 'begins a transaction'],
    ['', 'set local search_path = pg_catalog, pg_temp; loop commit; end loop;', 'begins a transaction'],
    [
      '',
      'set local search_path = pg_catalog; commit; set local search_path = pg_catalog, pg_temp;',
      'begins a',
    ],
    ['', 'set local search_path = pg_catalog, pg_temp; rollback; perform 1;', 'begins a transaction'],
  ])('decides what a procedure calls: declare %s begin %s', async (declarations, body, fault) => {
    expect(
      await faultsOf(
        `create procedure filestore.tried() language plpgsql as $$declare ${declarations} begin ${body} end$$`,
      ),
    ).toEqual(fault === null ? [] : [expect.stringContaining(`filestore.tried() ${fault}`)]);
  });
});
