import { concurrentIndexOf } from '../../../src/migrate/invalid-index.ts';
import { describeSchema } from '../../documents/describe-schema.ts';
import type { SchemaDescription } from '../../documents/description.ts';
import { sourceOfColumn } from '../../documents/view-columns.ts';
import type { Problem } from '../../sources/problem.ts';
import { migrationsOf, type Sources, type SqlSource } from '../../sources/sources.ts';
import { type DatabaseSubject, type Gate, judge } from '../gate.ts';
import { locate } from '../locate.ts';

interface Uncommented {
  readonly kind: string;
  /** As in `comment on`. */
  readonly subject: string;
  readonly names: readonly string[];
}

/** Without constraints, whose definition usually says everything, their indexes, and identity sequences. */
const UNCOMMENTED = `
  select kind, kind || ' ' || subject as subject, names
  from (
    select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' else 'table' end as kind,
           format('%I.%I', n.nspname, c.relname) as subject, array[c.relname::text] as names, obj_description(c.oid, 'pg_class') as comment
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'filestore' and c.relkind in ('r', 'p', 'f', 'v', 'm')
    union all
    select 'column', format('%I.%I.%I', n.nspname, c.relname, a.attname), array[c.relname, a.attname], col_description(c.oid, a.attnum)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
    where n.nspname = 'filestore' and c.relkind in ('r', 'p', 'f', 'v', 'm') and a.attnum > 0 and not a.attisdropped
    union all
    select case p.prokind when 'p' then 'procedure' when 'a' then 'aggregate' else 'function' end,
           format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), array[p.proname], obj_description(p.oid, 'pg_proc')
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'filestore'
      -- The server creates the constructors of range types.
      and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
    union all
    select 'trigger', format('%I on %I.%I', t.tgname, n.nspname, c.relname), array[t.tgname], obj_description(t.oid, 'pg_trigger')
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'filestore' and not t.tgisinternal
    union all
    select 'index', format('%I.%I', n.nspname, c.relname), array[c.relname], obj_description(c.oid, 'pg_class')
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'filestore' and not exists (select from pg_constraint k where k.conindid = i.indexrelid)
    union all
    select case t.typtype when 'd' then 'domain' else 'type' end, format('%I.%I', n.nspname, t.typname), array[t.typname], obj_description(t.oid, 'pg_type')
    from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
    where n.nspname = 'filestore' and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
    union all
    select 'schema', format('%I', nspname), array[nspname], obj_description(oid, 'pg_namespace')
    from pg_namespace where nspname = 'filestore'
  ) objects
  where coalesce(btrim(comment), '') = ''
  order by 1, 2`;

/** A comment line for people, not an instruction for graphile-migrate. */
const PURPOSE = /^--(?!!)[ \t]*\S/m;

/** Needs a database with all migrations applied. */
export const comments: Gate<DatabaseSubject> = {
  name: 'comments',
  proves: 'every object of the schema has a comment',
  async evaluate({ sources, client }) {
    const { rows } = await client.query<Uncommented>(UNCOMMENTED);
    const schema = await describeSchema(client);
    return judge(
      rows
        .filter((object) => !isTakenFromTable(object, schema))
        .flatMap((object) => problemsOf(object, sources)),
    );
  },
};

/** The data dictionary shows the comment of the source column for a view's column. */
function isTakenFromTable({ kind, names }: Uncommented, schema: SchemaDescription): boolean {
  if (kind !== 'column') return false;
  const [relationName, columnName] = names;
  const relation = schema.relations.find(({ name }) => name === relationName);
  const column = relation?.columns.find(({ name }) => name === columnName);
  return (
    relation !== undefined &&
    column !== undefined &&
    sourceOfColumn(relation, column, schema.relations) !== undefined
  );
}

function problemsOf({ kind, subject, names }: Uncommented, sources: Sources): readonly Problem[] {
  const built = kind === 'index' ? builderOf(names[0], sources) : undefined;
  if (built !== undefined) {
    if (PURPOSE.test(built.text)) return [];
    const [statement] = built.statements;
    return [
      {
        ...built.placeOf(statement?.line ?? 1),
        what: `${subject} has no comment`,
        remedy: 'Write its purpose in an SQL comment above the statement.',
      },
    ];
  }
  return [
    {
      ...locate(sources, kind, ...names),
      what: `${subject} has no comment`,
      remedy: `Write its purpose, which also appears in the data dictionary: comment on ${subject} is '…';`,
    },
  ];
}

/** The migration of one statement, without a transaction, that builds an index. */
function builderOf(index: string | undefined, sources: Sources): SqlSource | undefined {
  return migrationsOf(sources).findLast(
    ({ text, transaction }) => concurrentIndexOf({ body: text, transaction })?.index === index,
  );
}
