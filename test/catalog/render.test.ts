import { describe, expect, test } from 'vitest';
import type { CatalogModel } from '../../src/catalog/model.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { parseModel, renderModel } from '../../src/catalog/render.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();
const MIGRATION = { filename: '000007-something.sql', hash: 'sha1:0123456789abcdef' };

/** Text with all characters that have a meaning in the format. */
const AWKWARD: CatalogModel = {
  objects: [
    { kind: 'schema', name: 'filestore', definition: '', parts: [] },
    {
      kind: 'table',
      name: '"a: ""b"""',
      definition: '',
      parts: [
        { kind: 'column', name: '"column x: y"', definition: "text default ': '::text", parts: [] },
        { kind: 'column', name: 'plain', definition: '# no comment', parts: [] },
        { kind: 'constraint', name: 'c', definition: 'CHECK (\n\n  | x\ncolumn y: z\n)', parts: [] },
        { kind: 'privilege', name: 'UPDATE (plain)', definition: 'to public', parts: [] },
      ],
    },
    {
      kind: 'view',
      name: 'v',
      definition: '\n SELECT \n',
      parts: [{ kind: 'column', name: 'c', definition: 'text', parts: [] }],
    },
    { kind: 'materialized view', name: 'm', definition: ' leading and trailing ', parts: [] },
    { kind: 'function', name: 'f(text, "odd type")', definition: 'returns void\nbody', parts: [] },
  ],
};

describe('a rendered model', () => {
  test('of a live database is read back unchanged', async () => {
    const { objects } = await readCatalog(await database().connect());
    expect(objects.length).toBeGreaterThan(50);
    expect(parseModel(renderModel({ objects }, MIGRATION), 'a file')).toEqual({
      migration: MIGRATION,
      model: { objects },
    });
  });

  test('of awkward names and definitions is read back unchanged', () => {
    expect(parseModel(renderModel(AWKWARD, MIGRATION), 'a file')).toEqual({
      migration: MIGRATION,
      model: AWKWARD,
    });
  });

  test('that is empty is read back as empty', () => {
    expect(parseModel(renderModel({ objects: [] }, MIGRATION), 'a file').model).toEqual({ objects: [] });
  });

  test('has a line for each column', async () => {
    const text = renderModel(await readCatalog(await database().connect()), MIGRATION);
    const [listed] = await database().query<{ count: number }>(
      `select count(*)::integer as count from pg_attribute a join pg_class c on c.oid = a.attrelid
       where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'v') and a.attnum > 0
         and not a.attisdropped`,
    );
    expect(text.match(/^ {2}column \S+: \S.*$/gm)?.length).toBe(listed?.count);
  });
});

describe('a damaged file', () => {
  const text = renderModel(AWKWARD, MIGRATION);

  test.each([
    ['empty', ''],
    ['cut off', text.slice(0, -30)],
    ['cut off after an object', `${text.split('\n\n').slice(0, -1).join('\n\n')}\n`],
    ['without its first line', text.split('\n').slice(1).join('\n')],
    ['edited', text.replace('no comment', 'a comment')],
    ['left in a merge conflict', text.replace('schema filestore\n', '<<<<<<< ours\nschema filestore\n')],
    ['checked out with CRLF', text.replaceAll('\n', '\r\n')],
  ])('that is %s is refused with a remedy', (_what, damaged) => {
    expect(() => parseModel(damaged, 'schema/filestore.txt')).toThrow(
      expect.objectContaining({
        code: 'SCHEMA_MODEL_INVALID',
        message: expect.stringMatching(/^schema\/filestore\.txt .*npm run db:docs/s),
      }),
    );
  });
});
