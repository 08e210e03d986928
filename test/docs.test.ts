import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';
import { databaseForFile } from './support/databases/test-database.ts';
import { examplesOf, outcomeOf } from './support/packages/examples.ts';

const database = databaseForFile();

describe.each(['docs/functions.md', 'docs/import.md', 'docs/operations.md', 'docs/upkeep.md'])(
  '%s',
  (document) => {
    test('its examples run and return the rows that it shows', async () => {
      const client = await database().connect();
      // Values as psql prints them, not as dates or booleans of JavaScript.
      client.setTypeParser(16, String);
      client.setTypeParser(3802, String);
      const examples = examplesOf(document);
      expect(examples.length).toBeGreaterThan(0);
      for (const { statement, expected } of examples) {
        const outcome = await outcomeOf(client, statement);
        if (expected !== undefined) expect(outcome, statement).toEqual(expected);
        else expect(outcome.join('\n'), statement).not.toMatch(/^ERROR/);
      }
    });
  },
);

test('every function that a level may execute is either in docs/functions.md or internal', async () => {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs/functions.md'), 'utf8');
  const granted = await database().query<{ name: string; internal: boolean }>(
    `select p.proname as name, starts_with(obj_description(p.oid, 'pg_proc'), 'Internal: ') as internal
     from filestore.access_rights('operator') a join pg_proc p on p.oid = a.object::regprocedure
     where a.kind = 'function'`,
  );
  const isDocumented = (name: string) => new RegExp(`\\b${name}\\b`).test(text);
  expect(granted.map(({ name }) => name)).toEqual(expect.arrayContaining(['create_node', 'check_name']));
  expect(granted.filter(({ name, internal }) => isDocumented(name) === internal)).toEqual([]);
});

// A migration may leave this document unchanged, because schema/dictionary.md lists all objects.
test('every table, view, constraint, index and trigger that docs/schema.md names exists', async () => {
  const text = readFileSync(join(PACKAGE_ROOT, 'docs/schema.md'), 'utf8');
  const existing = await database().query<{ name: string; table: string | null }>(
    `select o.name, case c.relkind when 'r' then c.relname end as table
     from pg_class c
     cross join lateral (
       select c.relname as name
       union select conname from pg_constraint where conrelid = c.oid
       union select tgname from pg_trigger where tgrelid = c.oid and not tgisinternal
       union select i.relname from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid
     ) o
     where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v')`,
  );
  const names = new Set(existing.map(({ name }) => name));
  const tables = new Set(existing.flatMap(({ table }) => table ?? []));
  const headings = [...text.matchAll(/^### (.+)$/gm)].flatMap(([, words = '']) => words.split(' and '));
  // Names of constraints, indexes and triggers begin with their table.
  const called = new RegExp(`\`((?:(?:${[...tables].join('|')})_|view_filestore_)\\w+)\``, 'g');
  const named = [...headings, ...[...text.matchAll(called)].map(([, name = '']) => name)];
  expect(named.length).toBeGreaterThan(tables.size);
  expect(named.filter((name) => !names.has(name))).toEqual([]);
});

/** The anchors of a document's headings, as GitHub names them. */
function anchorsOf(path: string): readonly string[] {
  const headings = [...readFileSync(path, 'utf8').matchAll(/^#+ (.+)$/gm)].map((match) => match[1] ?? '');
  return headings.map((heading) =>
    heading
      .toLowerCase()
      .replace(/[^\w -]/g, '')
      .replaceAll(' ', '-'),
  );
}

test.each([
  'README.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'migrations/README.md',
  ...readdirSync(join(PACKAGE_ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((file) => file.endsWith('.md'))
    .map((file) => `docs/${file}`),
])('every link of %s leads to a file, and to a heading in it', (document) => {
  const path = join(PACKAGE_ROOT, document);
  const links = readFileSync(path, 'utf8').matchAll(/\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)/g);
  for (const [link, file = '', anchor = ''] of links) {
    const target = file === '' ? path : join(dirname(path), file);
    expect(existsSync(target), link).toBe(true);
    if (anchor !== '') expect(anchorsOf(target), link).toContain(anchor);
  }
});
