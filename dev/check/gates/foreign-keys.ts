import { FOREIGN_KEYS_WITHOUT_INDEX } from '../../../migrations/facts.ts';
import type { Problem } from '../../sources/problem.ts';
import type { Sources } from '../../sources/sources.ts';
import { type DatabaseSubject, FACTS_FILE, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';

interface ForeignKey {
  readonly relation: string;
  readonly name: string;
  readonly columns: readonly string[];
  readonly indexed: boolean;
}

// An index counts if its first columns are those of the key, in any order, and if it has every row that refers to
// another row: its predicate may only exclude rows in which a column of the key is null.
const FOREIGN_KEYS = `
  select c.relname as relation, k.conname as name,
         (select array_agg(a.attname::text order by position)
          from unnest(k.conkey) with ordinality key (attnum, position)
          join pg_attribute a on a.attrelid = k.conrelid and a.attnum = key.attnum) as columns,
         exists (
           select
           from pg_index i
           join pg_class x on x.oid = i.indexrelid
           join pg_am m on m.oid = x.relam
           where i.indrelid = k.conrelid and i.indisvalid and m.amname in ('btree', 'hash')
             and (string_to_array(i.indkey::text, ' ')::smallint[])[1:cardinality(k.conkey)] @> k.conkey
             and (i.indpred is null or exists (
                   select
                   from unnest(k.conkey) key (attnum)
                   join pg_attribute a on a.attrelid = k.conrelid and a.attnum = key.attnum
                   where pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname)))
         ) as indexed
  from pg_constraint k
  join pg_class c on c.oid = k.conrelid
  where k.contype = 'f' and k.conparentid = 0 and c.relnamespace = to_regnamespace('filestore')
  order by 1, 2`;

/** Needs a database with all migrations applied. */
export const foreignKeys: Gate<DatabaseSubject> = {
  name: 'foreign keys',
  proves: 'every foreign key has an index on its referencing columns, or a reason in migrations/facts.ts',
  async evaluate({ sources, client }) {
    const { rows } = await client.query<ForeignKey>(FOREIGN_KEYS);
    return judge(
      rows
        .filter(({ indexed, name }) => !indexed && FOREIGN_KEYS_WITHOUT_INDEX[name] === undefined)
        .map((key) => describe(key, sources)),
    );
  },
};

function describe({ relation, name, columns }: ForeignKey, sources: Sources): Problem {
  const index = `create index ${relation}_${columns.join('_')}_idx on filestore.${relation} (${columns.join(', ')})`;
  return {
    ...locate(sources, 'constraint', relation, name),
    what: `foreign key ${name} of filestore.${relation} has no index that begins with ${columns.join(', ')}: each update of a key or delete of a referenced row would scan the table`,
    remedy: `Add one: ${index}. Or give the reason in ${FACTS_FILE}.`,
  };
}
