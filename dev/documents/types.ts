import { JSON_OBJECTS } from '../../migrations/facts.ts';
import type { DomainDescription, RelationDescription, SchemaDescription } from './description.ts';
import { domainName } from './names.ts';
import { mayBeNull, sourceOfColumn } from './view-columns.ts';

/** The types that pg returns and accepts by default. */
export interface ValueType {
  readonly read: string;
  readonly write: string;
}

const NUMBER: ValueType = { read: 'number', write: 'number' };
const TEXT: ValueType = { read: 'string', write: 'string' };
const BIG_INTEGER: ValueType = { read: 'string', write: 'string | number | bigint' };
const MOMENT: ValueType = { read: 'Date', write: 'Date | string' };
const JSON_VALUE: ValueType = { read: 'JsonValue', write: 'JsonInput' };
const JSON_OBJECT: ValueType = { read: 'JsonObject', write: 'JsonObjectInput' };
const UNKNOWN: ValueType = { read: 'unknown', write: 'unknown' };

const BASE_TYPES: Readonly<Record<string, ValueType>> = {
  smallint: NUMBER,
  integer: NUMBER,
  real: NUMBER,
  'double precision': NUMBER,
  oid: NUMBER,
  // Both have values outside the range of JavaScript's numbers.
  bigint: BIG_INTEGER,
  numeric: { read: 'string', write: 'string | number' },
  boolean: { read: 'boolean', write: 'boolean' },
  text: TEXT,
  name: TEXT,
  uuid: TEXT,
  xid8: TEXT,
  // A function that returns nothing returns this to pg.
  void: { read: "''", write: "''" },
  'timestamp with time zone': MOMENT,
  'timestamp without time zone': MOMENT,
  date: MOMENT,
  interval: { read: 'unknown', write: 'string' },
  bytea: { read: 'Uint8Array', write: 'Uint8Array' },
  json: JSON_VALUE,
  jsonb: JSON_VALUE,
};

/** `CHECK ((VALUE = ANY (ARRAY['file'::text, 'directory'::text])))` */
const ONE_OF = /^CHECK \(\((\w+) = ANY \(ARRAY\[((?:'(?:[^']|'')*'::text(?:, )?)+)\]\)\)\)$/;
const HOLDS_OBJECTS = /^CHECK \(\(jsonb_typeof\((\w+)\) = 'object'::text\)\)$/;

/** Maps the types of a schema to TypeScript. */
export interface TypeMap {
  /** A type by its name in SQL, such as `bigint`, `node_kind`, `text[]`. */
  typeOf(type: string): ValueType;
  /** A column's type: the narrowest that its checks, or those of its source column, allow. */
  typeOfColumn(relation: RelationDescription, column: string): ValueType;
  /** A view's column is not null if its source column is not null. */
  isNullable(relation: RelationDescription, column: string): boolean;
}

export function typeMapOf(schema: SchemaDescription): TypeMap {
  const domains = new Map(schema.domains.map((domain) => [domain.name, domain]));
  // pg returns these as text, as it returns every type that it has no parser for.
  const textTypes = new Set([...schema.types, ...schema.relations].map(({ name }) => name));

  const typeOf = (type: string): ValueType => {
    if (textTypes.has(type.replace(/\[\]$/, ''))) return TEXT;
    if (type.endsWith('[]')) return arrayOf(typeOf(type.slice(0, -2)));
    const domain = domains.get(type);
    if (domain !== undefined) return typeOfDomain(domain);
    return BASE_TYPES[type.replace(/\(.*\)/, '')] ?? UNKNOWN;
  };

  const typeOfDomain = (domain: DomainDescription): ValueType => {
    if (valuesOf(domain) === undefined) return narrowed(domain.checks, 'VALUE') ?? typeOf(domain.base);
    return { read: domainName(domain.name), write: domainName(domain.name) };
  };

  const typeOfColumn = (relation: RelationDescription, name: string): ValueType => {
    const column = columnOf(relation, name);
    if (relation.kind === 'table') {
      const checks = relation.constraints.map(({ definition }) => definition);
      if (JSON_OBJECTS[relation.name]?.includes(name)) return JSON_OBJECT;
      return narrowed(checks, name) ?? typeOf(column?.type ?? '');
    }
    const source = column && sourceOfColumn(relation, column, schema.relations);
    return source ? typeOfColumn(source.table, source.column.name) : typeOf(column?.type ?? '');
  };

  const isNullable = (relation: RelationDescription, name: string): boolean => {
    const column = columnOf(relation, name);
    if (column === undefined || relation.kind === 'table') return !(column?.notNull ?? false);
    return mayBeNull(relation, column, schema.relations);
  };

  return { typeOf, typeOfColumn, isNullable };
}

/** The values that a domain lists, as a type; undefined when it lists none. */
export function valuesOf(domain: DomainDescription): string | undefined {
  return domain.checks.map((check) => literalsOf(check, 'VALUE')).find((found) => found !== undefined);
}

function columnOf(relation: RelationDescription, name: string) {
  return relation.columns.find((column) => column.name === name);
}

function narrowed(checks: readonly string[], subject: string): ValueType | undefined {
  for (const check of checks) {
    const literals = literalsOf(check, subject);
    if (literals !== undefined) return { read: literals, write: literals };
    if (HOLDS_OBJECTS.exec(check)?.[1] === subject) return JSON_OBJECT;
  }
  return undefined;
}

function literalsOf(check: string, subject: string): string | undefined {
  const [, name, list = ''] = ONE_OF.exec(check) ?? [];
  if (name !== subject) return undefined;
  const values = [...list.matchAll(/'((?:[^']|'')*)'::text/g)].map(([, value = '']) =>
    value.replaceAll("''", "'"),
  );
  return values.map((value) => `'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`).join(' | ');
}

function arrayOf({ read, write }: ValueType): ValueType {
  const wrap = (type: string) => (type.includes(' ') ? `(${type})[]` : `${type}[]`);
  return { read: wrap(read), write: `readonly ${wrap(write)}` };
}
