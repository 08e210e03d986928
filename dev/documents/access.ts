import { ACCESS_LEVELS, type AccessLevel } from '../../src/access-levels.ts';
import { MODELLED_SCHEMA } from '../../src/catalog/model.ts';
import type { CatalogClient } from '../../src/catalog/read.ts';

/** Names of columns by the name of the table. */
export type ColumnsOfTables = ReadonlyMap<string, ReadonlySet<string>>;

/** The rights of the levels that documents show. */
export interface AccessDescription {
  /** The columns that a service may insert. */
  readonly insertable: ColumnsOfTables;
  /** The columns that a service may update. */
  readonly updatable: ColumnsOfTables;
  /** The first level that may call a function, by the function's name. */
  readonly callers: ReadonlyMap<string, AccessLevel>;
}

const RIGHTS = `
  select l.level, a.privilege, a.column_name,
         case a.kind when 'function' then (select proname from pg_catalog.pg_proc where oid = a.object::regprocedure)
                     else (parse_ident(a.object))[2] end as object_name
  from unnest(array['${ACCESS_LEVELS.join("', '")}']) with ordinality l(level, position)
  cross join lateral ${MODELLED_SCHEMA}.access_rights(l.level) a
  where a.kind in ('column', 'function')
  order by l.position`;

interface Right {
  readonly level: AccessLevel;
  readonly privilege: string;
  readonly column_name: string | null;
  readonly object_name: string;
}

/** Reads the rights of the levels from the function that grants them. */
export async function readAccess(client: CatalogClient): Promise<AccessDescription> {
  const { rows } = (await client.query(RIGHTS)) as { readonly rows: readonly Right[] };
  const callers = new Map<string, AccessLevel>();
  for (const { level, privilege, object_name } of rows) {
    if (privilege === 'EXECUTE' && !callers.has(object_name)) callers.set(object_name, level);
  }
  return { insertable: columnsWith('INSERT', rows), updatable: columnsWith('UPDATE', rows), callers };
}

function columnsWith(privilege: string, rights: readonly Right[]): ColumnsOfTables {
  const columns = new Map<string, Set<string>>();
  for (const right of rights) {
    if (right.level !== 'service' || right.privilege !== privilege || right.column_name === null) continue;
    const known = columns.get(right.object_name) ?? new Set();
    columns.set(right.object_name, known.add(right.column_name));
  }
  return columns;
}
