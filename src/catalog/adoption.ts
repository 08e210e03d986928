import { printable } from '../text.ts';
import {
  type CatalogModel,
  type CatalogObject,
  describeObject,
  MODELLED_SCHEMA,
  type ObjectKind,
  objectKey,
} from './model.ts';

/** Kinds that share one namespace: two of them cannot have the same name. */
const RELATIONS: readonly ObjectKind[] = ['table', 'view', 'materialized view', 'sequence', 'type'];
/** Kinds that migrations keep if one of that name exists. */
const KEPT: readonly ObjectKind[] = ['domain', 'type', 'table'];
/** Parts that are created only together with their object. */
const MADE_WITHIN: readonly ObjectKind[] = ['column', 'constraint'];

/**
 * Conflicts in a database that has parts of the schema but no history. The migrations create missing objects
 * and recreate objects without data. `if not exists` skips the others, even if they differ. So a missing
 * table, index or trigger is not a conflict. A missing column or constraint is one, unless a migration adds
 * it to the existing table.
 * @param sql The SQL of all migrations.
 * @returns one line for each conflict.
 */
export function adoptionConflicts(
  expected: CatalogModel,
  actual: CatalogModel,
  sql: string,
): readonly string[] {
  const conflicts = expected.objects.flatMap((should) => {
    const sameKind = actual.objects.find(({ kind, name }) => kind === should.kind && name === should.name);
    if (sameKind === undefined) return conflictOfKind(should, actual);
    if (!KEPT.includes(should.kind)) return [];
    const own = should.kind === 'table' ? [] : conflictOfShape(should, null, sameKind);
    return [...own, ...conflictsOfParts(should, sameKind, sql)];
  });
  return conflicts.map(printable);
}

function conflictOfKind(should: CatalogObject, actual: CatalogModel): readonly string[] {
  if (!RELATIONS.includes(should.kind)) return [];
  const other = actual.objects.find(({ kind, name }) => RELATIONS.includes(kind) && name === should.name);
  return other === undefined
    ? []
    : [`${MODELLED_SCHEMA}.${should.name} is a ${other.kind}, should be a ${should.kind}`];
}

function conflictsOfParts(should: CatalogObject, is: CatalogObject, sql: string): readonly string[] {
  const found = new Map(is.parts.map((part) => [objectKey(part), part]));
  const wanted = new Set(should.parts.map(objectKey));
  const missingOrOther = should.parts
    .filter(({ kind }) => MADE_WITHIN.includes(kind))
    .flatMap((part) => {
      const same = found.get(objectKey(part));
      if (same !== undefined) return conflictOfShape(part, should, same);
      return isAdded(part, sql) ? [] : [`${describeObject(part, should)} is missing: ${shapeOf(part)}`];
    });
  // An extra column may be one that every insert has to fill. An extra constraint is drift.
  const extra = is.parts
    .filter((part) => part.kind === 'column' && !wanted.has(objectKey(part)))
    .map((part) => `${describeObject(part, should)} is not in the model: ${shapeOf(part)}`);
  return [...missingOrOther, ...extra];
}

function conflictOfShape(
  should: CatalogObject,
  owner: CatalogObject | null,
  is: CatalogObject,
): readonly string[] {
  const [found, wanted] = [shapeOf(is), shapeOf(should)];
  return found === wanted ? [] : [`${describeObject(should, owner)} is ${found}, should be ${wanted}`];
}

function isAdded({ name }: CatalogObject, sql: string): boolean {
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(
    `\\badd\\s+(column|constraint)\\s+(if\\s+not\\s+exists\\s+)?${escaped}(?![\\w$])`,
    'i',
  ).test(sql);
}

/** The definition without a column's default, which is its last part. */
function shapeOf({ kind, definition }: CatalogObject): string {
  return kind !== 'column' || definition.includes(' generated ')
    ? definition
    : definition.replace(/ default .*$/s, '');
}
