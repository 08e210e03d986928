import { VIEWS } from '../../migrations/facts.ts';
import type { ColumnDescription, RelationDescription } from './description.ts';

/** The column of a table that a view's column shows unchanged. */
export interface ColumnSource {
  readonly table: RelationDescription;
  readonly column: ColumnDescription;
}

/** The source of a view's column by migrations/facts.ts; undefined for an expression. */
export function sourceOfColumn(
  { name: view }: RelationDescription,
  { name, type }: ColumnDescription,
  relations: readonly RelationDescription[],
): ColumnSource | undefined {
  const { from = [], renamed = {} } = VIEWS[view] ?? {};
  const { table: origin, column: original } = renamed[name] ?? { table: undefined, column: name };
  for (const candidate of origin === undefined ? from : [origin]) {
    const table = relations.find((relation) => relation.name === candidate);
    const column = table?.columns.find((found) => found.name === original);
    if (table !== undefined && column?.type === type) return { table, column };
  }
  return undefined;
}

/** Whether a view's column may be null. */
export function mayBeNull(
  view: RelationDescription,
  column: ColumnDescription,
  relations: readonly RelationDescription[],
): boolean {
  const source = sourceOfColumn(view, column, relations);
  return source?.column.notNull !== true || (VIEWS[view.name]?.nullable ?? []).includes(column.name);
}
