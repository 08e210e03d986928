import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { FilestoreError, MigrationsInvalidError } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { PACKAGE_ROOT, RESTORE_PACKAGE } from '../package-root.ts';
import { compareNames, paragraph } from '../text.ts';
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
      paragraph(
        `The model of the schema cannot be read: ${path}.`,
        `${RESTORE_PACKAGE} In a checkout, regenerate it: npm run db:docs.`,
      ),
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

/**
 * Refuses a package that lacks the file of its last migration. The hashes of the other files do not show that.
 * @throws {MigrationsInvalidError} naming the file.
 */
export async function refuseMissingFile(committed: readonly CommittedMigration[]): Promise<void> {
  const modelled = await readModelledMigration();
  if (modelled !== undefined) refuseModelOfLaterOne(modelled, committed);
}

/** @throws {MigrationsInvalidError} when the model includes a migration after the last of the files. */
export function refuseModelOfLaterOne(
  { filename }: ModelledMigration,
  committed: readonly CommittedMigration[],
): void {
  const last = committed.at(-1);
  if (last === undefined || compareNames(filename, last.filename) <= 0) return;
  throw new MigrationsInvalidError(
    'MIGRATION_FILE_MISSING',
    paragraph(
      `Migration ${filename} is missing: the package's model of the schema includes it,`,
      `but the files end with ${last.filename}.`,
      'Restore the folder from version control, or install the package again.',
      'If you uncommitted it, regenerate the model (npm run db:docs).',
    ),
    filename,
  );
}
