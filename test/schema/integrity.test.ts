import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { REFERENCES_WITHOUT_KEY } from '../../migrations/facts.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { withoutTriggers } from '../support/databases/test-database.ts';
import { deleteNode, foldAll } from '../support/rows/nodes.ts';
import { catalogueForEachTest, namesOf, runBreaks } from './by-hand/breaking.ts';
import { BREAKS } from './by-hand/breaks.ts';
import { readRemedies } from './by-hand/healing.ts';

const catalogue = catalogueForEachTest();
const database = () => catalogue().database;
const problems = () => namesOf(database());

/** Runs statements without triggers and foreign keys, as a restore or a careless session does. */
async function pastTheGuards(...statements: readonly string[]): Promise<void> {
  await withoutTriggers(database(), async (client) => {
    for (const statement of statements) await client.query(statement);
  });
}

test('a catalogue with moved, deleted, restored and purged nodes has no problem', async () => {
  const { b, f, gone, root } = catalogue().ids;
  await deleteNode(database(), f);
  await database().query('select filestore.move_node($1, $2)', [b, root]);
  await database().query('select filestore.restore_node($1)', [f]);
  await foldAll(database());
  await database().query("select filestore.purge_deleted('0')");
  expect(await database().query('select from filestore.nodes where id = $1', [gone])).toEqual([]);
  expect(await problems()).toEqual([]);
});

describe('what is broken without triggers and keys, or by the owner, is named and healed, or the docs say that it is not seen', () => {
  runBreaks(BREAKS, catalogue);
});

describe('there is a break', () => {
  test('of each rule of docs/schema.md that a trigger, a function, a right or a key enforces', () => {
    const rules = [
      ...readFileSync(join(PACKAGE_ROOT, 'docs/schema.md'), 'utf8').matchAll(
        /^\| (.+?) \| (.*(?:\bT `|functions? `|G\b|K `nodes_parent_fkey|I `nodes_).*) \|$/gm,
      ),
    ];
    expect(rules.length).toBeGreaterThan(30);
    const isBroken = (rule: string) => BREAKS.some((each) => rule.startsWith(each.rule));
    expect(
      rules
        .map(([, rule = '']) => rule)
        .filter((rule) => !isBroken(rule) && !UNBROKEN.some((begin) => rule.startsWith(begin))),
    ).toEqual([]);
  });

  test('and docs/testing.md says how many there are', () => {
    const text = readFileSync(join(PACKAGE_ROOT, 'docs/testing.md'), 'utf8');
    const [, table = ''] = text.split('### Broken by hand\n');
    const numbers = [...table.matchAll(/^\| .+ \| (\d+) \|$/gm)]
      .slice(0, 7)
      .map(([, number]) => Number(number));
    const all = BREAKS.filter(({ off }) => off === undefined).length;
    const nothing = BREAKS.filter(({ off }) => off === 'nothing').length;
    const unseen = BREAKS.filter(({ named }) => named.length === 0).length;
    const problems = new Set(BREAKS.flatMap(({ named }) => named)).size;
    const { length } = BREAKS;
    expect(numbers).toEqual([
      length,
      all,
      length - all - nothing,
      nothing,
      length - unseen,
      unseen,
      problems,
    ]);
  });

  test('by each trigger that is off alone', async () => {
    const triggers = await database().query<{ name: string }>(
      "select tgname as name from pg_trigger where not tgisinternal and tgrelid::regclass::text like 'filestore.%' and tgfoid <> 'filestore.guard_move()'::regprocedure order by 1",
    );
    const off = new Set(BREAKS.flatMap((each) => each.off?.split(' ') ?? []));
    expect(triggers.map(({ name }) => name).filter((name) => !off.has(name))).toEqual([
      'backend_mounts_remove_root',
    ]);
  });

  test('and a remedy for each problem that check_integrity can name', async () => {
    const [{ body = '' } = {}] = await database().query<{ body: string }>(
      "select prosrc as body from pg_proc where oid = 'filestore.check_integrity()'::regprocedure",
    );
    const named = new Set(
      [...body.matchAll(/(?:then|else|select)\s+'([a-z ]+)'/g)].map(([, name = '']) => name),
    );
    for (const word of ['trigger', 'constraint', 'no row in rollups', 'nodes']) named.delete(word);
    expect([...named].sort()).toEqual([...new Set(BREAKS.flatMap((each) => each.named))].sort());
    expect([...named].sort()).toEqual([...new Set(readRemedies().flatMap((each) => each.problems))].sort());
  });
});

/** Rules that no statement here can break: a unique index keeps the one, and test/scaling breaks the other. */
const UNBROKEN = ['a command runs and succeeds once', 'a mount is released only if'];

const AUDITED = Object.entries(REFERENCES_WITHOUT_KEY).flatMap(([table, columns]) =>
  Object.entries(columns).map(([column, { to, mayDangle }]) => ({ table, column, to, mayDangle })),
);

describe('an id of a row that does not exist', () => {
  /** Sets the column of the newest row of a table, and returns the number of problems. */
  async function problemsAfterSetting(table: string, column: string): Promise<number> {
    await database().query(
      'update filestore.nodes set metadata = \'{"a": 1}\', size_bytes = 6 where id = $1',
      [catalogue().ids.f],
    );
    await database().query('select filestore.record_sightings(array[$1::bigint])', [catalogue().ids.f]);
    await database().query("select filestore.begin_command('x')");
    const value = column.endsWith('s') ? "'{999999999}'" : '999999999';
    await pastTheGuards(
      `update filestore.${table} set ${column} = ${value} where ctid = (select max(ctid) from filestore.${table})`,
    );
    return (await problems()).length;
  }

  test.each(AUDITED.filter(({ mayDangle }) => mayDangle === undefined))(
    'of $to in $column of $table is found',
    async ({ table, column }) => {
      expect(await problemsAfterSetting(table, column)).toBeGreaterThan(0);
    },
  );

  test.each(AUDITED.filter(({ mayDangle }) => mayDangle !== undefined))(
    'of $to in $column of $table is no problem: $mayDangle',
    async ({ table, column }) => {
      expect(await problemsAfterSetting(table, column)).toBe(0);
    },
  );
});

test('each problem names the node and says what is wrong', async () => {
  await pastTheGuards(
    `update filestore.nodes set parent_path = 'elsewhere', path = 'elsewhere/f', depth = 2 where id = ${catalogue().ids.f}`,
  );
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([
    {
      problem: 'path mismatch',
      backend_mount_id: catalogue().ids.mount,
      node_id: catalogue().ids.f,
      detail: `"elsewhere/f", parent ${catalogue().ids.b} ("a/b")`,
    },
  ]);
});

test('a problem with what is missing says so', async () => {
  await pastTheGuards(
    `delete from filestore.rollups where node_id = ${catalogue().ids.b}`,
    `update filestore.nodes set parent_id = 999997 where id = ${catalogue().ids.f}`,
    'insert into filestore.rollups (node_id) values (999998)',
    'insert into filestore.node_sightings (node_id) values (999999)',
  );
  const rows = await database().query('select problem, detail from filestore.check_integrity()');
  expect(rows).toEqual(
    expect.arrayContaining([
      { problem: 'orphan', detail: '"a/b/f", parent 999997' },
      {
        problem: 'wrong totals',
        detail: '"a/b": no row in rollups instead of 0 bytes, 0 files, 0 directories, 0 children',
      },
      { problem: 'totals of no directory', detail: 'the node does not exist' },
      { problem: 'sighting of no node', detail: 'never seen' },
    ]),
  );
});
