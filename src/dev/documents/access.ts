import { MODELLED_SCHEMA } from '../../catalog/model.ts';
import type { CatalogClient } from '../../catalog/read.ts';
import type { InsertableColumns } from './row-types.ts';

const COLUMNS = `
  select (parse_ident(object))[2] as table_name, column_name
  from ${MODELLED_SCHEMA}.access_rights('service')
  where kind = 'column' and privilege = 'INSERT'`;

/** Reads which columns a role with the level service may insert. */
export async function readInsertableColumns(client: CatalogClient): Promise<InsertableColumns> {
  const { rows } = (await client.query(COLUMNS)) as {
    readonly rows: readonly { readonly table_name: string; readonly column_name: string }[];
  };
  const columns = new Map<string, Set<string>>();
  for (const { table_name, column_name } of rows) {
    const known = columns.get(table_name) ?? new Set();
    columns.set(table_name, known.add(column_name));
  }
  return columns;
}
