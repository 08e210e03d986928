import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { MODEL_FILE, readCommittedModel } from '../../src/catalog/committed-model.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { renderModel } from '../../src/catalog/render.ts';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();
const committedText = () => readFileSync(join(PACKAGE_ROOT, MODEL_FILE), 'utf8');

describe('the committed model', () => {
  test('belongs to the last migration', async () => {
    const last = (await readCommittedMigrations(join(PACKAGE_ROOT, 'migrations'))).at(-1);
    expect((await readCommittedModel()).migration).toEqual({ filename: last?.filename, hash: last?.hash });
  });

  test('is the same text on a server of another version', async () => {
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

  test('fails with a remedy when the file is missing', async () => {
    await expect(readCommittedModel(root)).rejects.toMatchObject({
      code: 'SCHEMA_MODEL_INVALID',
      message: expect.stringContaining(join(root, MODEL_FILE)),
    });
  });

  test('fails with a remedy when the file is damaged', async () => {
    mkdirSync(dirname(join(root, MODEL_FILE)), { recursive: true });
    writeFileSync(join(root, MODEL_FILE), committedText().slice(0, -1));
    await expect(readCommittedModel(root)).rejects.toMatchObject({
      code: 'SCHEMA_MODEL_INVALID',
      message: expect.stringMatching(/damaged or was edited/),
    });
  });
});
