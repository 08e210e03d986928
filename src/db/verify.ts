import { adoptionConflicts } from '../catalog/adoption.ts';
import { readCommittedModel } from '../catalog/committed.ts';
import { compareModels, describeDifference } from '../catalog/compare.ts';
import { readCatalog } from '../catalog/read.ts';
import { SchemaConflictError, SchemaDriftedError, SchemaModelError } from '../errors.ts';
import { type ConnectionSettings, describeConnection } from '../settings.ts';
import type { CommittedMigration } from './history.ts';
import type { Queryable } from './session.ts';

/** What became of comparing the live schema with the model that ships with the package. */
export type SchemaCheck =
  | {
      readonly state: 'same';
      /** Where the comparison was weaker than it could be, one line each. */
      readonly notes: readonly string[];
    }
  | {
      readonly state: 'drifted';
      /** One line for each object that is missing, extra or changed. */
      readonly differences: readonly string[];
      readonly notes: readonly string[];
    }
  /** Nothing was compared, which says nothing about the schema. */
  | { readonly state: 'unchecked'; readonly reason: string };

/** Compares the live schema with the committed model. Reads only. */
export async function checkSchema(
  session: Queryable,
  committed: readonly CommittedMigration[],
): Promise<SchemaCheck> {
  const model = await readModel(committed);
  if ('reason' in model) return { state: 'unchecked', reason: model.reason };
  const { differences, notes } = compareModels(model.model, await readCatalog(session));
  return differences.length === 0
    ? { state: 'same', notes }
    : { state: 'drifted', differences: differences.map(describeDifference), notes };
}

/**
 * Refuses to migrate over tables that nobody migrated and that are not what the migrations would make: "if not
 * exists" would pass over them in silence.
 * @throws {SchemaConflictError} naming each of them.
 */
export async function refuseConflicts(
  session: Queryable,
  committed: readonly CommittedMigration[],
  connection: ConnectionSettings,
): Promise<void> {
  const model = await readModel(committed);
  if ('reason' in model) {
    throw new SchemaModelError(
      `Tables exist in ${describeConnection(connection)} that no migration is recorded for, and whether they are the right ones cannot be told: ${model.reason} Nothing was changed.`,
    );
  }
  const conflicts = adoptionConflicts(model.model, await readCatalog(session));
  if (conflicts.length === 0) return;
  throw new SchemaConflictError(
    `Schema filestore exists in ${describeConnection(connection)} with another shape, and no migration of it is recorded: ${conflicts.join('; ')}. Nothing was changed. Check that this is the right database; move what is in the way to another schema (alter table … set schema …), then run this again.`,
    conflicts,
  );
}

/** The error for a schema that is not what it should be. */
export function driftError(
  connection: ConnectionSettings,
  differences: readonly string[],
  applied: readonly string[],
): SchemaDriftedError {
  return new SchemaDriftedError(
    `The schema in ${describeConnection(connection)} is not the one that its migrations make:\n${differences.map((line) => `  ${line}`).join('\n')}\nSomebody changed it by hand. Change it back, or write the change as a migration.`,
    differences,
    applied,
  );
}

async function readModel(committed: readonly CommittedMigration[]) {
  const { migration, model } = await readCommittedModel();
  const last = committed.at(-1);
  if (migration.hash === last?.hash) return { model };
  return {
    reason: `the package's model of the schema is of migration ${migration.filename}, and its last one is ${last?.filename}; write the model again (npm run db:docs).`,
  };
}
