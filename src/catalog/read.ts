import { sendUntilLifted } from '../settings/setting-statement.mjs';
import { compareNames } from '../text.ts';
import { type CatalogObject, type LiveCatalog, OBJECT_KINDS, type ObjectKind, objectKey } from './model.ts';
import { inOneLine, withoutNeedlessQuotes } from './normalize.ts';
import { CATALOG_QUERY } from './query.ts';

/** A connection that can read the catalog: pg's Client, Pool or PoolClient. */
export interface CatalogClient {
  query(text: string): Promise<unknown>;
}

interface Row {
  readonly owner_kind: ObjectKind | null;
  readonly owner_name: string | null;
  readonly kind: ObjectKind;
  readonly name: string;
  readonly position: number;
  readonly definition: string;
}

/**
 * Reads all objects of the schema in one message to the server. Changes nothing and needs no privilege:
 * works on a hot standby, in a read-only session, and for a role that may not use the schema. The text does
 * not depend on the session's settings. An open transaction keeps the settings of this query until it ends.
 */
export async function readCatalog(client: CatalogClient): Promise<LiveCatalog> {
  const results = (await sendUntilLifted(() => client.query(CATALOG_QUERY))) as readonly {
    readonly rows: readonly unknown[];
  }[];
  const [version, rows] = results.slice(-2).map((result) => result.rows) as [
    readonly { readonly major: number }[],
    readonly Row[],
  ];
  const partsOf = new Map<string, Row[]>();
  for (const row of rows.map(normalize).toSorted(compareRows)) {
    const owner = row.owner_kind === null ? '' : `${row.owner_kind} ${row.owner_name}`;
    const parts = partsOf.get(owner);
    if (parts === undefined) partsOf.set(owner, [row]);
    else parts.push(row);
  }
  const build = (rows: readonly Row[] | undefined): readonly CatalogObject[] =>
    (rows ?? []).map(({ owner_kind, kind, name, definition }) => ({
      kind,
      name,
      definition,
      parts: owner_kind === null ? build(partsOf.get(objectKey({ kind, name }))) : [],
    }));
  return { serverMajor: version[0]?.major ?? 0, objects: build(partsOf.get('')) };
}

/** A column is one line. */
function normalize(row: Row): Row {
  return {
    ...row,
    owner_name: row.owner_name === null ? null : withoutNeedlessQuotes(row.owner_name),
    name: withoutNeedlessQuotes(row.name),
    definition: withoutNeedlessQuotes(row.kind === 'column' ? inOneLine(row.definition) : row.definition),
  };
}

function compareRows(a: Row, b: Row): number {
  return (
    OBJECT_KINDS.indexOf(a.kind) - OBJECT_KINDS.indexOf(b.kind) ||
    a.position - b.position ||
    compareNames(a.name, b.name)
  );
}
