import { FilestoreError, SchemaConflictError } from '../errors.ts';
import type { CommittedMigration } from '../graphile/committed-migrations.ts';
import { typedCommand } from '../package-root.ts';
import { isConnectionLoss } from '../session/connection-error.ts';
import type { Queryable, Session } from '../session/session.ts';
import { capitalized, paragraph, printable } from '../text.ts';
import { adoptionConflicts } from './adoption.ts';
import { readCommittedModel, refuseModelOfLaterOne } from './committed-model.ts';
import { compareModels, describeDifference } from './compare.ts';
import type { LiveCatalog } from './model.ts';
import { readCatalog } from './read.ts';
import { checkRights } from './rights.ts';

export { checkRights };

/** The result of comparing the live schema with the model of the package. */
export type SchemaCheck =
  | {
      readonly state: 'same';
      /** Limits of the comparison, one line each. */
      readonly notes: readonly string[];
    }
  | {
      readonly state: 'drifted';
      /** One line for each object that is missing, extra or changed, then one for each right. */
      readonly differences: readonly string[];
      readonly notes: readonly string[];
    }
  /** The comparison is incomplete. */
  | { readonly state: 'unchecked'; readonly reason: string };

/** Compares the live schema with the committed model. Reads only. */
export async function checkSchema(
  session: Queryable,
  committed: readonly CommittedMigration[],
): Promise<SchemaCheck> {
  const model = await readModel(committed);
  if ('reason' in model) return { state: 'unchecked', reason: model.reason };
  let live: LiveCatalog;
  try {
    live = await readCatalog(session);
  } catch (error) {
    if (isConnectionLoss(error) || !(error instanceof Error)) throw error;
    // A lock on a table, or a time limit, can prevent the server from describing it.
    const reason = paragraph(
      `the catalog could not be read (${printable(error.message)}).`,
      `Run ${typedCommand('verify')} later.`,
    );
    return { state: 'unchecked', reason };
  }
  const { differences, notes } = compareModels(model.model, live);
  return differences.length === 0
    ? { state: 'same', notes }
    : { state: 'drifted', differences: differences.map(describeDifference), notes };
}

/** Compares the schema, and the rights of roles with their levels. Reads only. */
export async function checkSchemaAndRights(
  session: Queryable,
  committed: readonly CommittedMigration[],
): Promise<SchemaCheck> {
  const schema = await checkSchema(session, committed);
  if (schema.state === 'unchecked') return schema;
  const rights = await checkRights(session);
  const { notes } = schema;
  if (rights.state === 'drifted') {
    const ofSchema = schema.state === 'drifted' ? schema.differences : [];
    return { state: 'drifted', differences: [...ofSchema, ...rights.differences], notes };
  }
  if (rights.state === 'same') return schema;
  if (schema.state === 'drifted') return { ...schema, notes: [...notes, rights.reason] };
  return { state: 'unchecked', reason: `The objects of the schema match. ${rights.reason}` };
}

/**
 * Refuses to migrate over tables without a history that differ from the model: "if not exists" would skip
 * them silently.
 * @throws {SchemaConflictError} naming each of them.
 */
export async function refuseConflicts(
  session: Session,
  committed: readonly CommittedMigration[],
): Promise<void> {
  const model = await readModel(committed);
  if ('reason' in model) {
    throw new FilestoreError(
      'SCHEMA_MODEL_INVALID',
      paragraph(
        `${capitalized(session.database.where)} has tables without a recorded migration,`,
        `which could not be checked: ${model.reason} Nothing was changed.`,
      ),
    );
  }
  const sql = committed.map(({ body }) => body).join('\n');
  const conflicts = adoptionConflicts(model.model, await readCatalog(session), sql);
  if (conflicts.length === 0) return;
  throw new SchemaConflictError(
    paragraph(
      `Schema filestore exists in ${session.database.where} with another shape and without a`,
      `recorded migration: ${conflicts.join('; ')}. Nothing was changed.`,
      'Check that this is the right database.',
      'Correct these objects, or move them to another schema (alter table … set schema …),',
      'then run this again.',
    ),
    conflicts,
  );
}

/**
 * The model to compare with, or the reason why there is none.
 * @throws {FilestoreError} `SCHEMA_MODEL_INVALID`: it is missing or damaged.
 * @throws {MigrationsInvalidError} the model includes a migration whose file is missing.
 */
async function readModel(committed: readonly CommittedMigration[]) {
  const { migration, model } = await readCommittedModel();
  const last = committed.at(-1);
  if (migration.hash === last?.hash) return { model };
  refuseModelOfLaterOne(migration, committed);
  return {
    reason: paragraph(
      `the package's model of the schema is of migration ${migration.filename}, but the last one is`,
      `${last?.filename}; regenerate the model (npm run db:docs).`,
    ),
  };
}
