import {
  type CatalogModel,
  type CatalogObject,
  describeObject,
  MODELLED_SCHEMA,
  type ObjectKind,
} from './model.ts';

/** Kinds whose names are of one space: where one stands, no other can be made. */
const RELATIONS: readonly ObjectKind[] = ['table', 'view', 'materialized view', 'sequence', 'type'];
/** Kinds that migrations leave as they are when one of that name is there. */
const KEPT: readonly ObjectKind[] = ['domain', 'type'];

/**
 * What stands in the way of migrating a database that has some of the schema already, but no history of it. The
 * migrations make what is missing, and again what holds no data; `if not exists` passes over the rest, be
 * it of another shape. So a missing column, index or trigger is no conflict.
 * @returns one line for each conflict.
 */
export function adoptionConflicts(expected: CatalogModel, actual: CatalogModel): readonly string[] {
  return expected.objects.flatMap((should) => {
    const sameKind = actual.objects.find(({ kind, name }) => kind === should.kind && name === should.name);
    if (sameKind === undefined) return conflictOfKind(should, actual);
    if (should.kind === 'table') return conflictsOfColumns(should, sameKind);
    if (!KEPT.includes(should.kind) || sameKind.definition === should.definition) return [];
    return [`${describeObject(should, null)} is ${sameKind.definition}, should be ${should.definition}`];
  });
}

function conflictOfKind(should: CatalogObject, actual: CatalogModel): readonly string[] {
  if (!RELATIONS.includes(should.kind)) return [];
  const other = actual.objects.find(({ kind, name }) => RELATIONS.includes(kind) && name === should.name);
  return other === undefined
    ? []
    : [`${MODELLED_SCHEMA}.${should.name} is a ${other.kind}, should be a ${should.kind}`];
}

function conflictsOfColumns(should: CatalogObject, is: CatalogObject): readonly string[] {
  const columnsOf = (table: CatalogObject) => table.parts.filter(({ kind }) => kind === 'column');
  const wanted = new Map(columnsOf(should).map((column) => [column.name, column]));
  return columnsOf(is).flatMap((column) => {
    const expected = wanted.get(column.name);
    const subject = describeObject(column, should);
    const found = withoutDefault(column.definition);
    if (expected === undefined) return [`${subject} is not in the model: ${found}`];
    const wantedDefinition = withoutDefault(expected.definition);
    return found === wantedDefinition ? [] : [`${subject} is ${found}, should be ${wantedDefinition}`];
  });
}

/** A default comes last in a column's definition, and only one that is not generated has any. */
function withoutDefault(definition: string): string {
  return definition.includes(' generated ') ? definition : definition.replace(/ default .*$/s, '');
}
