import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MODEL_FILE, readCommittedModel } from '../../src/catalog/committed.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { renderModel } from '../../src/catalog/render.ts';
import { readCommittedMigrations } from '../../src/db/history.ts';
import { checkSchemaModel, describeStaleness } from '../../src/dev/schema-model.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/database.ts';

const database = databaseForFile();
const committedText = () => readFileSync(join(PACKAGE_ROOT, MODEL_FILE), 'utf8');

describe('the committed model', () => {
  test('is what the migrations make, up to the last of them', async () => {
    expect(await checkSchemaModel()).toEqual([]);
    const last = (await readCommittedMigrations(join(PACKAGE_ROOT, 'migrations'))).at(-1);
    expect((await readCommittedModel()).migration).toEqual({ filename: last?.filename, hash: last?.hash });
  });

  test('is the same text when a server of another version is read', async () => {
    const { migration } = await readCommittedModel();
    expect(renderModel(await readCatalog(await database().connect()), migration)).toBe(committedText());
  });
});

describe('readCommittedModel', () => {
  let root: string;
  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'filestore-model-'));
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  test('says so when the file is missing', async () => {
    await expect(readCommittedModel(root)).rejects.toMatchObject({
      code: 'SCHEMA_MODEL_INVALID',
      message: expect.stringContaining(join(root, MODEL_FILE)),
    });
  });

  test('says so when the file is damaged', async () => {
    mkdirSync(dirname(join(root, MODEL_FILE)), { recursive: true });
    writeFileSync(join(root, MODEL_FILE), committedText().slice(0, -1));
    await expect(readCommittedModel(root)).rejects.toMatchObject({
      code: 'SCHEMA_MODEL_INVALID',
      message: expect.stringMatching(/damaged or was edited/),
    });
  });
});

describe('a stale model is described', () => {
  const text = 'a title\na checksum\n\nfirst\n  second\n';

  test.each([
    ['by the line that differs', text.replace('second', '2nd'), 'line 5 has "2nd", a new one has "second"'],
    ['by the line that it lacks', text.replace('first\n', ''), 'line 4 has "second", a new one has "first"'],
    ['by where it goes on', `${text}third\n`, 'line 6 has "third", a new one has ""'],
    [
      'by its header when nothing else differs',
      text.replace('checksum', 'hash'),
      'line 2 has "a hash", a new one has "a checksum"',
    ],
  ])('%s', (_how, stale, where) => {
    expect(describeStaleness(stale, text)).toEqual([
      `${MODEL_FILE} is not what the migrations make: ${where}. Write it again: npm run db:docs.`,
    ]);
  });
});
