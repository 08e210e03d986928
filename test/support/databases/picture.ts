import pg from 'pg';
import type { CatalogObject } from '../../../src/catalog/model.ts';
import { readCatalog } from '../../../src/catalog/read.ts';
import type { TestDatabase } from './test-database.ts';

/** Everything that a run could change in a database. Two pictures are equal if nothing was changed in between. */
export interface Picture {
  readonly catalog: readonly CatalogObject[];
  /** Every relation with its file, which changes when the relation is recreated. */
  readonly relations: readonly string[];
  /** The number of rows and a checksum of every table, also those of graphile-migrate. */
  readonly rows: Readonly<Record<string, string>>;
}

export async function takePicture(database: TestDatabase): Promise<Picture> {
  const client = await database.connect();
  try {
    const { rows: relations } = await client.query<{ oid: string; name: string; file: string; kind: string }>(
      `select c.oid, n.nspname || '.' || c.relname as name, c.relfilenode as file, c.relkind as kind
       from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
       order by 2`,
    );
    const rows: Record<string, string> = {};
    for (const { name, kind } of relations) {
      if (kind !== 'r') continue;
      const table = name.split('.').map(pg.escapeIdentifier).join('.');
      const { rows: sums } = await client.query<{ sum: string }>(
        `select count(*) || ' rows, ' || coalesce(sum(hashtextextended(t::text, 0)), 0) as sum from ${table} t`,
      );
      rows[name] = sums[0]?.sum ?? '';
    }
    const { objects } = await readCatalog(client);
    return {
      catalog: objects,
      relations: relations.map(({ oid, name, file }) => `${name} ${oid} ${file}`),
      rows,
    };
  } finally {
    await client.end();
  }
}
