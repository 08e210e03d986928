import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { readRaises } from '../../dev/documents/raises.ts';
import { type Reason, readReasons } from '../../dev/documents/render-reasons.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { REFUSAL_REASONS } from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();

const readAll = async (): Promise<readonly Reason[]> => readReasons(await database().connect());

/** The rows of the tables of reasons in docs/functions.md. */
function documentedReasons(): readonly Reason[] {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs/functions.md'), 'utf8');
  const chapter = /^## Refusals\n([\s\S]*?)^### Errors of the server$/m.exec(text)?.[1] ?? '';
  const namesIn = (cell: string) => [...cell.matchAll(/`(\w+)`/g)].map(([, name = '']) => name);
  return chapter.split('\n').flatMap((line) => {
    const [, codes = '', reasons = '', meaning = '', remedy = ''] = line
      .split('|')
      .map((cell) => cell.trim());
    if (meaning === '' || remedy === '') return [];
    return namesIn(reasons).map((name) => ({ name, codes: namesIn(codes).sort() }));
  });
}

describe('the reasons of refusals', () => {
  test('are in docs/functions.md once each with their SQLSTATEs, and no others', async () => {
    const byName = (reasons: readonly Reason[]) => [...reasons].sort((a, b) => (a.name < b.name ? -1 : 1));
    expect(byName(documentedReasons())).toEqual(await readAll());
  });

  test('are the ones that the package exports', async () => {
    expect(REFUSAL_REASONS).toEqual((await readAll()).map(({ name }) => name));
  });

  test('include names from a list of rules, a key, a unique index, a domain and a trigger', async () => {
    expect((await readAll()).map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        ...['nodes_metadata_check', 'nodes_parent_fkey', 'nodes_live_child_key', 'node_kind_check'],
        ...['nodes_tombstone_check', 'backend_mounts_secret_check'],
      ]),
    );
  });

  test('leave out those that only the owner of the schema can get', async () => {
    const names = (await readAll()).map(({ name }) => name);
    for (const name of ['database_number_check', 'truncate_check', 'backfill_key_check', 'backfills_pkey']) {
      expect(names).not.toContain(name);
    }
  });

  test('include those that a migration adds', async () => {
    const client = await database().connect();
    await client.query('begin');
    await client.query(`
      alter table filestore.nodes add constraint nodes_added_check check (size_bytes <> 12345);
      create function filestore.added_rule() returns void language plpgsql as $$
      begin
        raise exception 'an added rule''s; message'
          using errcode = 'FS409', constraint = 'nodes_added_rule', hint = 'Leave it.';
      end $$;
      create function filestore.added_trigger() returns trigger language plpgsql as $$
      begin
        perform filestore.added_rule();
        return new;
      end $$;
      create trigger nodes_added before insert on filestore.nodes
        for each row execute function filestore.added_trigger()`);
    const reasons = await readReasons(client);
    await client.query('rollback');
    expect(reasons).toContainEqual({ name: 'nodes_added_check', codes: ['23514'] });
    expect(reasons).toContainEqual({ name: 'nodes_added_rule', codes: ['FS409'] });
  });
});

describe('raises', () => {
  test('all have a SQLSTATE of the schema, a reason and a hint', async () => {
    const functions = await database().query<{ name: string; body: string }>(
      `select p.oid::regprocedure::text as name, p.prosrc as body from pg_proc p
       where p.pronamespace = 'filestore'::regnamespace`,
    );
    const tables = await database().query<{ prefix: string }>(
      `select c.relname || '_' as prefix from pg_class c
       where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r'`,
    );
    const raises = functions.flatMap(({ name, body }) =>
      readRaises(
        body,
        tables.map(({ prefix }) => prefix),
      ).map((raise) => ({ name, ...raise })),
    );
    expect(raises.length).toBeGreaterThan(50);
    const incomplete = raises.filter(
      ({ code = '', reasons, hasHint }) =>
        !/^(FS404|FS409|FS422|check_violation)$/.test(code) || reasons.length === 0 || !hasHint,
    );
    expect(incomplete).toEqual([]);
  });

  test('say "exception" explicitly, since a raise without it would not be found', async () => {
    const others = await database().query(
      `select p.oid::regprocedure::text as name
       from pg_proc p
       where p.pronamespace = 'filestore'::regnamespace
         and p.prosrc ~ '\\mraise\\M\\s+(?!exception\\M|warning\\M|notice\\M|info\\M|log\\M|debug\\M|sqlstate ''FS001'';)[''a-z]'`,
    );
    expect(others).toEqual([]);
  });

  test.each([
    ['nothing', "raise exception 'x';", [{ code: undefined, reasons: [], hasHint: false }]],
    [
      'an expression that is not a list',
      "raise exception 'x' using errcode = 'FS409', constraint = fault.name, hint = 'y';",
      [{ code: 'FS409', reasons: [], hasHint: true }],
    ],
    [
      'a list of rules',
      `select * from (values ('nodes_a', x in ('nodes', 'b')), ('nodes_b', true)) r;
       raise exception 'x' using errcode = 'FS409', constraint = coalesce(fault.name, 'nodes_c'), hint = 'y';`,
      [{ code: 'FS409', reasons: ['nodes_c', 'nodes_a', 'nodes_b'], hasHint: true }],
    ],
    ['a comment', "-- raise exception 'x'\nnull;", []],
  ])('are read from %s', (_what, body, raises) => {
    expect(readRaises(body, ['nodes_'])).toEqual(raises);
  });
});
