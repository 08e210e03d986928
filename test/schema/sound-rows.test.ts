import type { Client } from 'pg';
import { beforeAll, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode, deleteNode, one } from '../support/rows/nodes.ts';

const database = databaseForFile();

const text = (bytes: number) => 'a'.repeat(bytes);
const NAMES = ['', 'a', 'docs', 'docs/a', '/', '.', '..', '...', 'c1\u0085', 'line\nbreak'];
const LENGTHS = [256, 257, 1024, 1025, 2600, 2601, 4096, 4097].map(text);
const CHECKSUMS = ['md5:0a', 'MD5:0a', 'md5:', `md5:${text(1020)}`, `md5:${text(1021)}`];
const OBJECTS = [{}, { a: 1 }, { a: text(65_527) }, { a: text(65_528) }, { a: text(1_048_577) }];

/** What each column is set to, by its type. */
const VALUES: Readonly<Record<string, readonly unknown[]>> = {
  boolean: [true, false],
  integer: [-1, 0, 1, 2],
  bigint: [-1, 0, 1],
  'bigint[]': ['{}', '{1,2}', '{{1},{2}}', '{null}', `{${'1,'.repeat(100_000)}1}`],
  text: [...NAMES, ...LENGTHS, ...CHECKSUMS],
  'timestamp with time zone': [
    '-infinity',
    '0001-12-31T23:59:59Z BC',
    '0001-01-01T00:00:00Z',
    '9999-12-31T23:59:59.999Z',
    '10000-01-01T00:00:00Z',
    'infinity',
  ],
  jsonb: [...OBJECTS, [], 'a'],
  'filestore.node_kind': ['file', 'directory'],
  'filestore.node_state': ['active', 'inconsistent', 'missing', 'deleted'],
  'filestore.command_status': ['queued', 'running', 'succeeded', 'failed', 'canceled'],
};

/** Each column, set to each value of its type. The server refuses nulls in the others before it evaluates a check. */
async function readChanges(table: string): Promise<readonly Record<string, unknown>[]> {
  const columns = await database().query<{ name: string; type: string; nullable: boolean }>(
    `select a.attname as name, format_type(a.atttypid, null) as type, not a.attnotnull as nullable
     from pg_attribute a
     where a.attrelid = ('filestore.' || $1)::regclass and a.attnum > 0 and not a.attisdropped`,
    [table],
  );
  return columns.flatMap(({ name, type, nullable }) => {
    const values = VALUES[type];
    if (values === undefined) throw new Error(`Add values of the type ${type} to this test.`);
    return [...values, ...(nullable ? [null] : [])].map((value) => ({ [name]: value }));
  });
}

/** Creates a function that returns the constraint by which a call refuses a row, or null. */
const createRefusal = (session: Client, name: string, table: string, call: string) =>
  session.query(`
    create function pg_temp.${name}(given filestore.${table}) returns text language plpgsql as $$
    declare
      rule text;
    begin
      perform ${call};
      return null;
    exception
      when check_violation then
        get stacked diagnostics rule = constraint_name;
        return rule;
    end
    $$`);

/** One row for each way in which the check and the list of rules judge a row of the table with one changed column. */
async function readVerdicts(session: Client, table: string) {
  const { rows } = await session.query<{
    by_check: string | null;
    by_rules: string;
    shortest: number;
    example: string;
  }>(
    `select
       verdict.by_check,
       verdict.by_rules,
       min(length(change::text)) as shortest,
       min(left(change::text, 60) || ' in ' || left(t::text, 200)) as example
     from filestore.${table} t
     cross join jsonb_array_elements($1::jsonb) as change
     cross join lateral (
       select jsonb_populate_record(t, change) as given
       offset 0
     ) changed
     cross join lateral (
       select pg_temp.by_check(changed.given) as by_check, pg_temp.by_rules(changed.given) as by_rules
       offset 0
     ) verdict
     group by 1, 2`,
    [JSON.stringify(await readChanges(table))],
  );
  return rows;
}

async function readSource(name: string): Promise<string> {
  return (await one(database(), 'select prosrc from pg_proc where oid = $1::regproc', [`filestore.${name}`]))
    .prosrc;
}

/** The names in a list of rules. */
const rulesIn = (source: string) => [
  ...new Set([...source.matchAll(/'(\w+_check)',/g)].map(([, name]) => name)),
];

beforeAll(async () => {
  const mount = await createMount(database());
  const docs = await createDirectory(database(), mount, mount.rootId, 'docs');
  for (const parent of [mount.rootId, docs]) {
    await createNode(database(), mount, parent, 'a');
    await deleteNode(database(), await createNode(database(), mount, parent, 'b'));
    await deleteNode(database(), await createDirectory(database(), mount, parent, 'c'));
  }
  const begin = "select (entry).id from filestore.begin_command('x', idempotency_key => $1, queue => $2)";
  const finish = 'select filestore.finish_command($1, $2, $3, $4)';
  for (const queue of [true, false]) {
    await one(database(), begin, [`open ${queue}`, queue]);
    const { id } = await one(database(), begin, [`canceled ${queue}`, queue]);
    await database().query(finish, [id, 'canceled', null, null]);
  }
  for (const [status, result, error] of [
    ['succeeded', '{}', null],
    ['failed', null, '{}'],
  ]) {
    const { id } = await one(database(), begin, [status, false]);
    await database().query(finish, [id, status, result, error]);
  }
});

test('is_sound refuses exactly the nodes for which refuse_unsound finds a broken rule', async () => {
  const session = await database().connect();
  await createRefusal(session, 'by_check', 'nodes', 'filestore.is_sound(given)');
  await createRefusal(session, 'by_rules', 'nodes', 'filestore.refuse_unsound(given)');
  const verdicts = (await readVerdicts(session, 'nodes')).map((verdict) => ({
    ...verdict,
    by_rules: verdict.by_rules === 'nodes_sound_check' ? null : verdict.by_rules,
  }));
  expect(verdicts.filter(({ by_check, by_rules }) => by_check !== by_rules)).toEqual([]);
  // The changes break each rule, and not all of them break one.
  const rules = rulesIn(await readSource('refuse_unsound'));
  expect(new Set(verdicts.map(({ by_rules }) => by_rules))).toEqual(new Set([...rules, null]));
});

test('is_sound_entry refuses exactly the entries for which its list of rules has a broken one', async () => {
  const session = await database().connect();
  const source = await readSource('is_sound_entry');
  await session.query(
    `create function pg_temp.refuse_entry(entry filestore.journal_entries) returns boolean language plpgsql as
     $body$${source.replace(/(?<=begin\n)[\s\S]*?(?= {2}select \*\n {2}into fault)/, '')}$body$`,
  );
  await createRefusal(session, 'by_check', 'journal_entries', 'filestore.is_sound_entry(given)');
  await createRefusal(session, 'by_rules', 'journal_entries', 'pg_temp.refuse_entry(given)');
  const verdicts = await readVerdicts(session, 'journal_entries');
  // The last rule of the list has no condition. It names what breaks no other rule, so only changes to a long value.
  const size = 'journal_entries_size_check';
  const differ = verdicts.filter(({ by_check, by_rules }) => (by_check ?? size) !== by_rules);
  expect(differ).toEqual([]);
  expect(verdicts.find(({ by_check }) => by_check === size)?.shortest).toBeGreaterThan(1024);
  expect(new Set(verdicts.map(({ by_rules }) => by_rules))).toEqual(new Set(rulesIn(source)));
});
