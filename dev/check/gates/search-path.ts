import { type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';
import type { DatabaseSubject } from '../subject.ts';

const PINNED = 'search_path=pg_catalog, pg_temp';

/** Needs a database with all migrations applied. */
export const searchPath: Gate<DatabaseSubject> = {
  name: 'search path',
  proves: 'every security definer function pins its search_path',
  async check({ sources, client }) {
    const { rows } = await client.query<{ name: string; subject: string }>(
      `select proname as name, oid::regprocedure::text as subject
       from pg_proc
       where pronamespace = 'filestore'::regnamespace and prosecdef and proconfig @> array[$1] is not true
       order by 2`,
      [PINNED],
    );
    return judge(
      rows.map(({ name, subject }) => ({
        ...locate(sources, 'function', name),
        what: `function ${subject} is security definer without a fixed search_path, so callers can put their objects in front`,
        remedy: 'Add below "security definer": set search_path = pg_catalog, pg_temp',
      })),
    );
  },
};
