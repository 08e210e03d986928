import { readModelledMigration } from '../catalog/committed.ts';
import type { ModelledMigration } from '../catalog/render.ts';
import { MigrationsInvalidError } from '../errors.ts';
import { compareNames } from '../text.ts';
import type { CommittedMigration } from './committed-migrations.ts';

/**
 * Refuses a package without the file of its last migration, which the chain of the others cannot show.
 * @throws {MigrationsInvalidError} naming the file.
 */
export async function refuseMissingFile(committed: readonly CommittedMigration[]): Promise<void> {
  const modelled = await readModelledMigration();
  if (modelled !== undefined) refuseModelOfLaterOne(modelled, committed);
}

/** @throws {MigrationsInvalidError} when the model was made with a migration after the last of the files. */
export function refuseModelOfLaterOne(
  { filename }: ModelledMigration,
  committed: readonly CommittedMigration[],
): void {
  const last = committed.at(-1);
  if (last === undefined || compareNames(filename, last.filename) <= 0) return;
  throw new MigrationsInvalidError(
    'MIGRATION_FILE_MISSING',
    `Migration ${filename} is missing: the package's model of the schema includes it, but the files end with ${last.filename}. Restore the folder from version control, or install the package again. If you uncommitted it, regenerate the model (npm run db:docs).`,
    filename,
  );
}
