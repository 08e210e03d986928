import { isBoxedPrimitive, isDate } from 'node:util/types';
import { ROW_TYPES, type ValueTypes } from '../value-parsers.ts';

/** Runs a statement: pg's Client, PoolClient or Pool. */
export interface SqlClient {
  query(statement: SqlStatement): Promise<{ readonly rows: readonly unknown[] }>;
}

/** A statement as pg takes it, with parsers of its values. Without a name, it survives every migration. */
export interface SqlStatement {
  readonly text: string;
  readonly values: unknown[];
  readonly types: ValueTypes;
}

/** The description of a function that a call needs. */
export interface SqlFunction {
  readonly name: string;
  readonly result: SqlResult;
  /** By their keys in TypeScript. */
  readonly parameters: Readonly<Record<string, SqlParameter>>;
}

export interface SqlParameter {
  /** The name in SQL. */
  readonly name: string;
  /** SQL has no default for it. */
  readonly required?: true;
  /** It takes JSON, or an array of JSON values. */
  readonly json?: 'value' | 'array';
  /** It takes a string, or an array. Otherwise it takes one value of another type, or {@link json}. */
  readonly takes?: 'text' | 'list';
}

/**
 * How a call returns a row. `columns`: the row unchanged. `value`: its only column, never null.
 * `value or null`: its only column, possibly null.
 */
export type SqlResult = 'nothing' | 'columns' | 'value' | 'value or null' | SqlTableRow | SqlNestedResult;

/** A row of a table or view, never all null. */
export interface SqlTableRow {
  readonly table: string;
}

/** Out parameters of which one is a row. Inside of a row, pg would return that one as text. */
export interface SqlNestedResult extends SqlTableRow {
  /** The parameter that is a row; never all null. */
  readonly row: string;
  /** The other parameters. */
  readonly columns: readonly string[];
  /** Those of {@link columns} that may be null. */
  readonly nullable?: readonly string[];
}

type Row = Readonly<Record<string, unknown>>;

/** Prefix of the columns next to those of a nested row, which can have any name. */
const MARK = 'filestore.';

/** Calls a function that returns nothing. */
export async function callForNothing(client: SqlClient, called: SqlFunction, args: object): Promise<void> {
  await run(client, called, args);
}

/** Calls a function that returns one row or one value. */
export async function callForOne<T>(client: SqlClient, called: SqlFunction, args: object): Promise<T> {
  const [row] = await run(client, called, args);
  if (row === undefined) throw new Error(`filestore.${called.name} returned no row`);
  return read(called, row) as T;
}

/** Calls a function that returns at most one row. */
export async function callForOneOrNone<T>(
  client: SqlClient,
  called: SqlFunction,
  args: object,
): Promise<T | undefined> {
  const [row, ...others] = await run(client, called, args);
  if (others.length > 0)
    throw new Error(`filestore.${called.name} is declared with "rows 1", but returned more`);
  return row === undefined ? undefined : (read(called, row) as T);
}

/** Calls a function that returns any number of rows. */
export async function callForAll<T>(
  client: SqlClient,
  called: SqlFunction,
  args: object,
): Promise<readonly T[]> {
  return (await run(client, called, args)).map((row) => read(called, row) as T);
}

async function run(client: SqlClient, called: SqlFunction, args: object): Promise<readonly Row[]> {
  return (await client.query(statementOf(called, args))).rows as readonly Row[];
}

/** An argument that is left out or undefined is not in the statement, so that SQL's default applies. */
function statementOf(called: SqlFunction, args: object): SqlStatement {
  // An instance of a class inherits its accessors: an expected version must not be left out because of that.
  const inherited = Object.keys(called.parameters).filter((key) => key in args);
  const given = [...new Set([...Object.keys(args), ...inherited])].map((key) => ({
    parameter: parameterOf(called, key),
    value: Reflect.get(args, key) as unknown,
  }));
  const used = given.filter(({ value }) => value !== undefined);
  refuseMissing(
    called,
    used.filter(({ value }) => value !== null).map(({ parameter }) => parameter),
  );
  const list = used
    .map(({ parameter }, position) => `${quote(parameter.name)} => $${position + 1}`)
    .join(', ');
  const { name, result } = called;
  return {
    text: `${lockOf(result)}select ${columnsOf(result)} from filestore.${quote(name)}(${list}) result`,
    values: used.map(({ parameter, value }) => toSqlValue(called, parameter, value)),
    types: ROW_TYPES,
  };
}

/** Only names that were generated get into the statement. */
function parameterOf({ name, parameters }: SqlFunction, key: string): SqlParameter {
  const found = Object.hasOwn(parameters, key) ? parameters[key] : undefined;
  if (found !== undefined) return found;
  const known = Object.keys(parameters).join(', ');
  const remedy = known === '' ? 'It takes no arguments.' : `Its arguments are ${known}.`;
  throw new TypeError(`filestore.${name} has no argument ${JSON.stringify(key)}. ${remedy}`);
}

/** Null is missing too, as in the types: most functions would return null for it. */
function refuseMissing({ name, parameters }: SqlFunction, given: readonly SqlParameter[]): void {
  for (const [key, parameter] of Object.entries(parameters)) {
    if (!parameter.required || given.includes(parameter)) continue;
    throw new RangeError(`filestore.${name} needs the argument ${key}, which is missing or null.`);
  }
}

/**
 * pg would send an array of JSON as one of Postgres, and a string of JSON without quotes. Null stays SQL's
 * null.
 */
function toSqlValue({ name }: SqlFunction, parameter: SqlParameter, value: unknown): unknown {
  if (value === null) return value;
  const { json } = parameter;
  const problem = problemOfType(parameter, value) ?? (json === undefined ? problemOf(value) : undefined);
  if (problem !== undefined) {
    throw new RangeError(`filestore.${name} got ${problem.replace('…', parameter.name)}`);
  }
  if (json === 'value') return toJson(name, parameter, value);
  if (json === 'array') return (value as readonly unknown[]).map((item) => toJson(name, parameter, item));
  return Array.isArray(value) ? value.map(toText) : toText(value);
}

function toJson(name: string, parameter: SqlParameter, value: unknown): string {
  let text: string | undefined;
  let cause: unknown;
  try {
    text = JSON.stringify(value, keepJson);
  } catch (error) {
    cause = error;
  }
  if (text !== undefined) return text;
  const why = cause instanceof Error ? ` (${cause.message})` : '';
  const remedy = 'Pass strings, numbers, booleans, null, arrays and plain objects.';
  throw new RangeError(
    `filestore.${name} got a value for ${parameter.name} that is not JSON${why}. ${remedy}`,
    { cause },
  );
}

/** Throws where JSON would be another value: an expected version of NaN would become null, which expects none. */
function keepJson(this: unknown, key: string, value: unknown): unknown {
  const given: unknown = Reflect.get(Object(this), key);
  let problem: string | undefined;
  if (HALF_PAIR.test(key) || (typeof value === 'string' && HALF_PAIR.test(value))) {
    problem = 'half of a surrogate pair';
  } else if (typeof value === 'number' && !Number.isFinite(value)) problem = String(value);
  else if (isDate(given) && value === null) problem = 'an invalid Date';
  else if (becomesEmpty(value)) problem = `a ${value.constructor.name}`;
  else if (Array.isArray(this) && ['undefined', 'function', 'symbol'].includes(typeof value)) {
    problem = `${typeof value} in an array`;
  }
  if (problem !== undefined) throw new RangeError(problem);
  return value;
}

/** Whether JSON has only `{}` for it, such as for a Map, a Promise that was not awaited, and an Error. */
function becomesEmpty(value: unknown): value is object {
  if (typeof value !== 'object' || value === null || isBoxedPrimitive(value)) return false;
  if (Array.isArray(value) || Object.keys(value).length > 0) return false;
  // Not of plain objects, also of another realm.
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype !== null && Object.getPrototypeOf(prototype) !== null;
}

/** In UTC. pg would write the local time with an offset of whole minutes, but old offsets have seconds. */
function toText(value: unknown): unknown {
  return isDate(value) ? value.toISOString() : value;
}

/** Why a value is not of the parameter's type. pg would send an array as the text `{"a","b"}`. */
function problemOfType({ json, takes }: SqlParameter, value: unknown): string | undefined {
  const isList = takes === 'list' || json === 'array';
  if (json !== 'value' && Array.isArray(value) !== isList) {
    if (isList) return 'no array for …. Pass an array.';
    return 'an array for …. Pass one value. Many frameworks make an array of a repeated parameter of a URL.';
  }
  if (takes !== 'text' || typeof value === 'string' || typeof value === 'object') return undefined;
  return `a value of type ${typeof value} for …. Pass a string.`;
}

/** Half of a surrogate pair. pg would replace each one by U+FFFD, so that different texts become equal. */
const HALF_PAIR = /\p{Surrogate}/u;

/** Other years have another form in SQL than in toISOString. No moment of the schema has them. */
function problemOfDate(value: Date): string | undefined {
  if (Number.isNaN(value.getTime())) return 'an invalid Date for ….';
  const year = value.getUTCFullYear();
  return year < 1 || year > 9999
    ? `a Date in the year ${year} for …. Pass one of the years 1 to 9999.`
    : undefined;
}

/** Why a value that is not of JSON would not reach SQL as it is. `…` stands for the parameter. */
function problemOf(value: unknown): string | undefined {
  if (Array.isArray(value)) return value.map(problemOf).find((problem) => problem !== undefined);
  if (typeof value === 'string') {
    const remedy = 'Pass text for which isWellFormed() is true.';
    return HALF_PAIR.test(value) ? `half of a surrogate pair for …. ${remedy}` : undefined;
  }
  if (isDate(value)) return problemOfDate(value);
  if (value === null || !['object', 'function', 'symbol'].includes(typeof value)) return undefined;
  const remedy = 'Pass a string, number, bigint, boolean or Date, or an array of these.';
  return `${ArrayBuffer.isView(value) ? 'bytes' : `a value of type ${typeof value}`} for …. ${remedy}`;
}

/**
 * Names the table of the row, so that the server locks it when it parses the statement, and not only in the
 * function. Else the statement fails if a migration adds a column to the table in between. The server does
 * not read the table.
 */
function lockOf(result: SqlResult): string {
  return typeof result === 'string' ? '' : `with locked as (select from filestore.${quote(result.table)}) `;
}

function columnsOf(result: SqlResult): string {
  if (!isNested(result)) return 'result.*';
  const columns = result.columns.map((column) => `result.${quote(column)} as ${quote(MARK + column)}`);
  return [`(result.${quote(result.row)}).*`, ...columns].join(', ');
}

function isNested(result: SqlResult): result is SqlNestedResult {
  return typeof result !== 'string' && 'row' in result;
}

function read({ name, result }: SqlFunction, row: Row): unknown {
  if (result === 'value' || result === 'value or null') {
    return requireValue(name, Object.values(row)[0], result === 'value or null');
  }
  if (isNested(result)) return readNested(name, result, row);
  return typeof result === 'string' ? row : requireRow(name, row);
}

function readNested(name: string, { row: key, columns, nullable = [] }: SqlNestedResult, row: Row): Row {
  const values = columns.map(
    (column) => [column, requireValue(name, row[MARK + column], nullable.includes(column))] as const,
  );
  const nested = Object.entries(row).filter(([column]) => !column.startsWith(MARK));
  return { ...Object.fromEntries(values), [key]: requireRow(name, Object.fromEntries(nested)) };
}

function requireValue(name: string, value: unknown, nullable: boolean): unknown {
  if (value !== null || nullable) return value;
  throw new Error(`filestore.${name} returned null, which its comment in SQL does not allow`);
}

/** SQL does not distinguish a null row from a row of nulls. */
function requireRow(name: string, row: Row): Row {
  if (Object.values(row).every((value) => value === null)) {
    throw new Error(`filestore.${name} returned null instead of a row`);
  }
  return row;
}

function quote(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
