import { REFERENCES_WITHOUT_KEY } from '../../migrations/facts.ts';
import type { ColumnDescription, RelationDescription, SchemaDescription } from './description.ts';

/** A reference from one table to another as a diagram draws it. */
interface Relationship {
  /** The name of the foreign key, or of the column without one. */
  readonly name: string;
  readonly from: string;
  readonly to: string;
  readonly columns: readonly string[];
  /** `--` with a foreign key, `..` without one. */
  readonly line: '--' | '..';
  /** How many rows of `to` one row of `from` refers to, as Mermaid writes it. */
  readonly referred: '||' | '|o' | '}o';
  /** How many rows of `from` refer to one row of `to`. */
  readonly referring: 'o|' | 'o{';
}

/** All tables with all columns in Mermaid's words. */
export function renderMermaid(schema: SchemaDescription): string {
  return render(tablesOf(schema), relationshipsOf(schema), () => true);
}

/** The tables that refer to one another, with only the columns of their keys and references. */
export function renderOverview(schema: SchemaDescription): string {
  const relationships = relationshipsOf(schema);
  const tables = tablesOf(schema).filter(({ name }) =>
    relationships.some(({ from, to }) => from === name || to === name),
  );
  return render(
    tables,
    relationships,
    (table, { name }) =>
      keysOfColumn(table, name).length > 0 ||
      relationships.some(({ from, columns }) => from === table.name && columns.includes(name)),
  );
}

/** `PK`, `FK`, `UK`: the keys that a column is part of. */
export function keysOfColumn(table: RelationDescription, column: string): readonly string[] {
  const marks = { 'primary key': 'PK', 'foreign key': 'FK', unique: 'UK' } as const;
  return Object.entries(marks)
    .filter(([kind]) => table.constraints.some((key) => key.kind === kind && key.columns.includes(column)))
    .map(([, mark]) => mark);
}

function render(
  tables: readonly RelationDescription[],
  relationships: readonly Relationship[],
  isShown: (table: RelationDescription, column: ColumnDescription) => boolean,
): string {
  const lines = relationships.map(
    ({ name, from, to, line, referred, referring }) =>
      `  ${to} ${referred}${line}${referring} ${from} : ${name}`,
  );
  const entities = tables.map((table) => {
    const columns = table.columns
      .filter((column) => isShown(table, column))
      .map((column) =>
        `    ${shortType(column.type)} ${column.name} ${keysOfColumn(table, column.name).join(', ')}`.trimEnd(),
      );
    return `  ${table.name} {\n${columns.join('\n')}\n  }`;
  });
  return ['erDiagram', ...lines, ...entities].join('\n');
}

function tablesOf(schema: SchemaDescription): readonly RelationDescription[] {
  return schema.relations.filter(({ kind }) => kind === 'table');
}

function relationshipsOf(schema: SchemaDescription): readonly Relationship[] {
  return tablesOf(schema).flatMap((table) => [...foreignKeysOf(table), ...referencesWithoutKeyOf(table)]);
}

function foreignKeysOf(table: RelationDescription): readonly Relationship[] {
  return table.constraints.flatMap(({ name, columns, references }) =>
    references === null ? [] : [{ name, to: references.table, line: '--', ...multiplicity(table, columns) }],
  );
}

function referencesWithoutKeyOf(table: RelationDescription): readonly Relationship[] {
  return Object.entries(REFERENCES_WITHOUT_KEY[table.name] ?? {}).map(([column, { to }]) => ({
    name: column,
    to,
    line: '..',
    ...multiplicity(table, [column]),
  }));
}

function multiplicity(table: RelationDescription, columns: readonly string[]) {
  const own = table.columns.filter(({ name }) => columns.includes(name));
  const keys = table.constraints.filter(({ kind }) => kind === 'primary key' || kind === 'unique');
  const isSeveral = own.some(({ type }) => type.endsWith('[]'));
  const isOptional = own.some(({ notNull }) => !notNull);
  const isSingle = keys.some((key) => key.columns.every((name) => columns.includes(name)));
  return {
    from: table.name,
    columns,
    referred: isSeveral ? '}o' : isOptional ? '|o' : '||',
    referring: isSingle ? 'o|' : 'o{',
  } as const;
}

/** A short name of the type. */
function shortType(type: string): string {
  return type
    .replace(/timestamp(?:\(\d\))? with time zone/, 'timestamptz')
    .replace('double precision', 'float8')
    .replaceAll(' ', '_');
}
