import type { RelationDescription, SchemaDescription } from './description.ts';
import { keysOfColumn, relationshipsOf, shortType, tablesOf } from './diagram.ts';

/** Measures of the drawing, in pixels. */
export const ROW_HEIGHT = 17;
export const HEAD_HEIGHT = 26;
export const CHARACTER_WIDTH = 6.7;
export const PADDING = 10;
const GAP_ACROSS = 90;
const GAP_DOWN = 34;
const MARGIN = 24;

/** The position of a table in the drawing. */
export interface Box {
  readonly table: RelationDescription;
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
  readonly rows: readonly Row[];
  /** Where the types begin, from the box's left edge. */
  readonly typeAt: number;
}

export interface Row {
  readonly name: string;
  readonly type: string;
  readonly keys: string;
  readonly notNull: boolean;
}

export interface Layout {
  readonly boxes: readonly Box[];
  readonly width: number;
  readonly height: number;
}

/**
 * Places tables in columns: a referenced table is to the left of the tables that refer to it. Tables without keys
 * fill the shortest columns.
 */
export function layOut(schema: SchemaDescription): Layout {
  const relationships = relationshipsOf(schema).filter(({ from, to }) => from !== to);
  const isRelated = (name: string) => relationships.some(({ from, to }) => from === name || to === name);
  const rankOf = (name: string, seen: readonly string[] = []): number =>
    Math.max(
      0,
      ...relationships
        .filter(({ from, to }) => from === name && !seen.includes(to))
        .map(({ to }) => rankOf(to, [...seen, name]) + 1),
    );
  const columns: RelationDescription[][] = [[]];
  const tables = tablesOf(schema);
  for (const table of tables.filter(({ name }) => isRelated(name))) {
    const rank = rankOf(table.name);
    while (columns.length <= rank) columns.push([]);
    columns[rank]?.push(table);
  }
  for (const table of tables.filter(({ name }) => !isRelated(name)).toSorted(byHeight)) {
    columns.toSorted((a, b) => heightOfColumn(a) - heightOfColumn(b))[0]?.push(table);
  }
  return place(columns);
}

function place(columns: readonly (readonly RelationDescription[])[]): Layout {
  const boxes: Box[] = [];
  let x = MARGIN;
  for (const tables of columns) {
    let y = MARGIN;
    const column = tables.map((table) => {
      const box = { ...measure(table), x, y };
      y += box.height + GAP_DOWN;
      return box;
    });
    boxes.push(...column);
    x += Math.max(0, ...column.map(({ width }) => width)) + GAP_ACROSS;
  }
  return {
    boxes,
    width: x - GAP_ACROSS + MARGIN,
    height: Math.max(0, ...boxes.map((box) => box.y + box.height)) + MARGIN,
  };
}

function measure(table: RelationDescription): Omit<Box, 'x' | 'y'> {
  const rows = table.columns.map(({ name, type, notNull }) => ({
    name,
    type: shortType(type),
    keys: keysOfColumn(table, name).join(' '),
    notNull,
  }));
  const longest = (texts: readonly string[]) =>
    Math.max(0, ...texts.map((text) => text.length)) * CHARACTER_WIDTH;
  const typeAt = PADDING + longest(rows.map(({ name }) => name)) + 2 * PADDING;
  const keysAt = typeAt + longest(rows.map(({ type }) => type)) + PADDING;
  const width =
    Math.max(keysAt + longest(rows.map(({ keys }) => keys)), longest([table.name]) * 1.2) + PADDING;
  return { table, rows, width: Math.ceil(width), height: heightOf(table), typeAt: Math.ceil(typeAt) };
}

function heightOf(table: RelationDescription): number {
  return HEAD_HEIGHT + table.columns.length * ROW_HEIGHT + PADDING / 2;
}

function heightOfColumn(tables: readonly RelationDescription[]): number {
  return tables.reduce((sum, table) => sum + heightOf(table) + GAP_DOWN, 0);
}

function byHeight(a: RelationDescription, b: RelationDescription): number {
  return heightOf(b) - heightOf(a);
}
