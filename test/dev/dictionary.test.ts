import { beforeAll, describe, expect, test } from 'vitest';
import { describeSchema } from '../../dev/documents/describe-schema.ts';
import type { SchemaDescription } from '../../dev/documents/description.ts';
import { renderMermaid, renderOverview, withDiagram } from '../../dev/documents/diagram.ts';
import { renderDictionary } from '../../dev/documents/dictionary.ts';
import { REFERENCES_WITHOUT_KEY } from '../../migrations/facts.ts';
import { databaseForFile, databaseRolledBackAfterEachTest } from '../support/databases/test-database.ts';

const database = databaseForFile();
const changed = databaseRolledBackAfterEachTest();
let schema: SchemaDescription;
let dictionary: string;
beforeAll(async () => {
  schema = await describeSchema(await database().connect());
  dictionary = renderDictionary(schema);
});

/** The part of the dictionary below a heading. */
const section = (text: string, title: string) =>
  text.split(/^(?=#{2,3} )/m).find((part) => part.startsWith(`### ${title}\n`)) ?? expect.fail(`no ${title}`);

describe('the data dictionary', () => {
  test('has every table, view, column, domain and function with its comment', async () => {
    const objects = await database().query<{ name: string; comment: string | null }>(
      `select c.relname as name, obj_description(c.oid, 'pg_class') as comment
       from pg_class c where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v')
       union all
       select a.attname, col_description(c.oid, a.attnum)
       from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
       where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v')
       union all
       select proname, obj_description(oid, 'pg_proc') from pg_proc
       where pronamespace = 'filestore'::regnamespace and prolang <> (select oid from pg_language where lanname = 'internal')
       union all
       select typname, obj_description(oid, 'pg_type') from pg_type
       where typnamespace = 'filestore'::regnamespace and typtype = 'd'`,
    );
    expect(objects.length).toBeGreaterThan(150);
    for (const { name, comment } of objects) {
      expect(dictionary).toContain(name);
      // A column of a view may have the comment of the table's column.
      if (comment === null) continue;
      expect(dictionary).toContain(comment.replace(/^Internal: /, '').replaceAll('|', '\\|'));
    }
  });

  test('shows the content and source of a column', () => {
    const lines = section(dictionary, 'nodes').split('\n');
    expect(lines).toContainEqual(
      expect.stringMatching(/^\| `id` \| bigint \| {2}\| PK UK \| identity, always \| Stable number/),
    );
    expect(lines).toContainEqual(
      expect.stringMatching(
        /^\| `parent_id` \| bigint \| null \| FK \| {2}\| The directory that holds the node/,
      ),
    );
    expect(lines).toContainEqual(
      expect.stringMatching(/^\| `state` \| \[node_state\]\(#domains\) \| {2}\| {2}\| `'active'::text` \|/),
    );
    expect(lines).toContainEqual(
      expect.stringMatching(/^\| `path` \| text \| {2}\| {2}\| {2}\| Path below the mount's root/),
    );
  });

  test("has the table's comment for a view's column that comes from the table, and otherwise the view's", () => {
    const lines = section(dictionary, 'view_filestore_active_nodes').split('\n');
    expect(lines).toContainEqual(expect.stringMatching(/^\| `id` \| bigint \| Stable number of the node/));
    expect(lines).toContainEqual(
      expect.stringMatching(/^\| `last_seen_at` \| .* \| When a watcher last saw the node/),
    );
    expect(lines).toContainEqual(
      expect.stringMatching(/^\| `mount_state` \| text \| backend_mounts\.state\. \|$/),
    );
  });

  test('lists procedures separately, with their arguments', () => {
    const [, procedures = ''] = dictionary.split('\n## Procedures\n');
    expect(section(procedures, 'erase_mount')).toContain(
      '```\nerase_mount(\n  mount_key text,\n  batch integer default 10000\n)\n```\n\nprocedure, ',
    );
  });

  test('shows the arguments and result of a function', () => {
    expect(section(dictionary, 'list_directory')).toContain(
      "list_directory(\n  directory_id bigint,\n  after_name text default ''::text,\n  page_size bigint default 1000,\n  with_deleted boolean default false,\n  after_id bigint default NULL::bigint\n)\nreturns setof nodes\n",
    );
    expect(section(dictionary, 'begin_command')).toContain('returns is_new boolean, entry journal_entries\n');
  });

  test('has internal functions in one table, one per line', () => {
    const [, internal = ''] = dictionary.split('\n## Internal functions\n');
    expect(internal).toMatch(/^\| `check_name` \| Raises FS422 when /m);
    expect(dictionary).not.toContain('### check_name\n');
    expect(internal).not.toContain('Internal: ');
  });

  test('has tables in which every row has as many cells as the header', () => {
    for (const table of dictionary.match(/(?:^\|.*\n)+/gm) ?? []) {
      const cells = table
        .trim()
        .split('\n')
        .map((line) => line.split(/(?<!\\)\|/).length);
      expect(new Set(cells).size, table).toBe(1);
    }
  });

  test('has links that lead to headings', () => {
    const headings = [...dictionary.matchAll(/^#+ (.*)$/gm)].map(([, title = '']) =>
      title.toLowerCase().replaceAll(' ', '-'),
    );
    const links = [...dictionary.matchAll(/\]\(#([^)]+)\)/g)].map(([, link]) => link);
    expect(links.length).toBeGreaterThan(10);
    for (const link of links) expect(headings).toContain(link);
  });

  test('escapes special characters in names and comments', async () => {
    await changed().query(
      `create table filestore."odd | name" ("a|b" text default 'x|y'); comment on table filestore."odd | name" is E'two\\nlines'`,
    );
    const text = renderDictionary(await describeSchema(await changed().connect()));
    expect(section(text, 'odd | name')).toContain("| `a\\|b` | text | null |  | `'x\\|y'::text` |  |");
  });
});

describe('the diagram', () => {
  test('has every table, column and foreign key, in Mermaid', async () => {
    const text = renderMermaid(schema);
    expect(text).toMatch(/^erDiagram\n/);
    expectMermaid(text);
    expect(text).toContain('  backend_mounts |o--o{ nodes : nodes_backend_mount_fkey\n');
    expect(text).toContain('  nodes |o--o{ nodes : nodes_parent_fkey\n');
    const [{ columns } = { columns: 0 }] = await database().query<{ columns: number }>(
      `select count(*)::integer as columns from pg_class c join pg_attribute a on a.attrelid = c.oid
       where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped`,
    );
    expect(text.match(/^ {4}\S/gm)).toHaveLength(columns);
  });

  test('draws references without a foreign key as dotted lines, all in existing columns', () => {
    const text = renderMermaid(schema);
    expect(text).toContain('  nodes ||..o| rollups : node_id\n');
    expect(text).toContain('  nodes ||..o{ snapshots : id\n');
    expect(text).toContain('  nodes }o..o{ journal_entries : affected_node_ids\n');
    for (const [name, columns] of Object.entries(REFERENCES_WITHOUT_KEY)) {
      const table = schema.relations.find((relation) => relation.name === name);
      expect(
        table?.columns.map((column) => column.name),
        name,
      ).toEqual(expect.arrayContaining(Object.keys(columns)));
    }
  });

  test('has for the README only tables that refer to one another and are not internal, with only their keys', async () => {
    await changed().query(
      `create table filestore.egg (id bigint primary key, hen_id bigint, colour text);
       create table filestore.hen (id bigint primary key, egg_id bigint references filestore.egg (id));
       alter table filestore.egg add constraint egg_hen_fkey foreign key (hen_id) references filestore.hen (id)`,
    );
    await changed().query(
      `create table filestore.nest (id bigint primary key, egg_id bigint references filestore.egg (id));
       comment on table filestore.nest is 'Internal: Where eggs are.'`,
    );
    const text = renderOverview(await describeSchema(await changed().connect()));
    expectMermaid(text);
    expect(text).not.toContain('nest');
    expect(text).toContain('  hen |o--o{ egg : egg_hen_fkey\n');
    expect(text).toContain('  egg {\n    bigint id PK\n    bigint hen_id FK\n  }\n');
    expect(text).toContain('    bigint node_id PK\n');
    expect(text).toContain('    bigint directory_id\n');
    expect(text).not.toContain('access_levels');
  });
});

describe('the README', () => {
  test('has the diagram between its markers, or at its end when there are no markers', () => {
    const readme = withDiagram('# Title\n', schema);
    expect(readme).toMatch(
      /^# Title\n\n<!-- Generated by .*\n\n```mermaid\nerDiagram\n[^`]*```\n\n<!-- End .* -->\n$/,
    );
    const changedByHand = readme.replace(/ {2}nodes .*\n/, '');
    expect(changedByHand).not.toBe(readme);
    expect(withDiagram(`${changedByHand}\nEnd.\n`, schema)).toBe(`${readme}\nEnd.\n`);
  });
});

/** Lines that Mermaid reads: relationships first, then tables with their columns. */
function expectMermaid(text: string): void {
  for (const line of text.split('\n').slice(1)) {
    expect(line).toMatch(
      /^ {2}(?:\w+ (?:\|\||\|o|}o)(?:--|\.\.)(?:o\{|o\|) \w+ : \w+|\w+ \{|\}| {2}[a-z]\w*(?:\[\])? \w+(?: (?:PK|FK|UK)(?:, (?:PK|FK|UK))*)?)$/,
    );
  }
}
