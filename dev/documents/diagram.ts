import type { ConstraintDescription, RelationDescription, SchemaDescription } from './description.ts';

/** A foreign key in a diagram. */
export interface Relationship {
  readonly name: string;
  readonly from: string;
  readonly to: string;
  /** A row of `from` need not refer to anything. */
  readonly optional: boolean;
  /** At most one row of `from` refers to the same row. */
  readonly single: boolean;
}

export function tablesOf(schema: SchemaDescription): readonly RelationDescription[] {
  return schema.relations.filter(({ kind }) => kind === 'table');
}

export function relationshipsOf(schema: SchemaDescription): readonly Relationship[] {
  return tablesOf(schema).flatMap((table) =>
    table.constraints.flatMap((constraint) =>
      constraint.references === null
        ? []
        : [
            {
              name: constraint.name,
              from: table.name,
              to: constraint.references.table,
              optional: constraint.columns.some(
                (name) => !table.columns.find((column) => column.name === name)?.notNull,
              ),
              single: keysOf(table).some(({ columns }) => isWithin(columns, constraint.columns)),
            },
          ],
    ),
  );
}

/** `PK`, `FK`, `UK`: the keys that a column is part of. */
export function keysOfColumn(table: RelationDescription, column: string): readonly string[] {
  const marks = { 'primary key': 'PK', 'foreign key': 'FK', unique: 'UK' } as const;
  return Object.entries(marks)
    .filter(([kind]) => table.constraints.some((key) => key.kind === kind && key.columns.includes(column)))
    .map(([, mark]) => mark);
}

/** A short name of the type. */
export function shortType(type: string): string {
  return type
    .replace(/timestamp(?:\(\d\))? with time zone/, 'timestamptz')
    .replace('double precision', 'float8')
    .replaceAll(' ', '_');
}

/** The tables and their foreign keys as Mermaid. */
export function renderMermaid(schema: SchemaDescription): string {
  const relationships = relationshipsOf(schema).map(({ name, from, to, optional, single }) => {
    const line = `${optional ? '|o' : '||'}--${single ? 'o|' : 'o{'}`;
    return `  ${to} ${line} ${from} : ${name}`;
  });
  const tables = tablesOf(schema).map((table) => {
    const columns = table.columns.map((column) =>
      ['   ', shortType(column.type), column.name, keysOfColumn(table, column.name).join(', ')]
        .join(' ')
        .trimEnd(),
    );
    return `  ${table.name} {\n${columns.join('\n')}\n  }`;
  });
  return ['erDiagram', ...relationships, ...tables].join('\n');
}

function keysOf(table: RelationDescription): readonly ConstraintDescription[] {
  return table.constraints.filter(({ kind }) => kind === 'primary key' || kind === 'unique');
}

function isWithin(some: readonly string[], others: readonly string[]): boolean {
  return some.every((name) => others.includes(name));
}
