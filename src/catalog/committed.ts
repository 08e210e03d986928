import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError } from '../errors.ts';
import { PACKAGE_ROOT, RESTORE_PACKAGE } from '../package-root.ts';
import { type ModelledMigration, modelledMigrationOf, parseModel, type SchemaModel } from './render.ts';

/** The model of the schema, in a package. */
export const MODEL_FILE = join('schema', 'filestore.txt');

/**
 * Reads the model of the schema that ships with the package.
 * @throws {FilestoreError} `SCHEMA_MODEL_INVALID` when it is missing or damaged.
 */
export async function readCommittedModel(root: string = PACKAGE_ROOT): Promise<SchemaModel> {
  const path = join(root, MODEL_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (cause) {
    throw new FilestoreError(
      'SCHEMA_MODEL_INVALID',
      `The model of the schema cannot be read: ${path}. ${RESTORE_PACKAGE} In a checkout, regenerate it: npm run db:docs.`,
      { cause },
    );
  }
  return parseModel(text, MODEL_FILE);
}

/** The last migration that the package's model includes; undefined if the model cannot be read. */
export async function readModelledMigration(
  root: string = PACKAGE_ROOT,
): Promise<ModelledMigration | undefined> {
  const text = await readFile(join(root, MODEL_FILE), 'utf8').catch(() => '');
  return modelledMigrationOf(text);
}
