import { REFERENCES_WITHOUT_KEY } from '../../../migrations/facts.ts';
import { type DatabaseSubject, FACTS_FILE, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';

// A column of ids, unless the table gives them to its own rows, or a foreign key proves them.
const UNPROVED = `
  select c.relname as relation, a.attname as "column"
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid
  where c.relnamespace = 'filestore'::regnamespace and c.relkind in ('r', 'p')
    and a.attnum > 0 and not a.attisdropped and a.attidentity = ''
    and a.atttypid in ('bigint'::regtype, 'bigint[]'::regtype)
    and a.attname ~ '(^|_)ids?$'
    and not exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and a.attnum = any (k.conkey))
  order by 1, 2`;

/** Needs a database with all migrations applied. */
export const references: Gate<DatabaseSubject> = {
  name: 'references',
  proves: `every column of ids has a foreign key, or is in ${FACTS_FILE}, so that check_integrity has to audit it`,
  async evaluate({ sources, client }) {
    const { rows } = await client.query<{ relation: string; column: string }>(UNPROVED);
    return judge(
      rows
        .filter(({ relation, column }) => REFERENCES_WITHOUT_KEY[relation]?.[column] === undefined)
        .map(({ relation, column }) => ({
          ...locate(sources, 'column', relation, column),
          what: `column ${column} of filestore.${relation} holds ids, and has no foreign key`,
          remedy: `Add a foreign key. Or add the column to REFERENCES_WITHOUT_KEY of ${FACTS_FILE}, and a query to filestore.check_integrity that finds an id without a row.`,
        })),
    );
  },
};
