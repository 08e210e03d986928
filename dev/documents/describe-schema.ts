import { MODELLED_SCHEMA } from '../../src/catalog/model.ts';
import { inOneLine, withoutNeedlessQuotes } from '../../src/catalog/normalize.ts';
import { NAMED_OBJECTS } from '../../src/catalog/query.ts';
import type { CatalogClient } from '../../src/catalog/read.ts';
import { underPinnedSettings } from '../../src/settings/server-settings.ts';
import type { SchemaDescription } from './description.ts';
import { sourceOfColumn } from './view-columns.ts';

const COLUMNS = `
  select coalesce(json_agg(json_build_object(
           'name', a.attname,
           'type', format_type(a.atttypid, a.atttypmod),
           'notNull', a.attnotnull or t.typnotnull,
           'identity', case a.attidentity when 'a' then 'always' when 'd' then 'by default' end,
           'generated', case when a.attgenerated <> '' then pg_get_expr(d.adbin, r.oid) end,
           'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, r.oid) end,
           'comment', col_description(r.oid, a.attnum)) order by a.attnum), '[]')
  from pg_attribute a
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = r.oid and d.adnum = a.attnum
  where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped`;

const NAMES_OF = (relation: string, numbers: string) => `
  (select json_agg(a.attname order by c.position)
   from unnest(${numbers}) with ordinality c(number, position)
   join pg_attribute a on a.attrelid = ${relation} and a.attnum = c.number)`;

const CONSTRAINTS = `
  select coalesce(json_agg(json_build_object(
           'name', k.conname,
           'kind', case k.contype when 'p' then 'primary key' when 'u' then 'unique' when 'f' then 'foreign key'
                                  when 'x' then 'exclusion' else 'check' end,
           'definition', pg_get_constraintdef(k.oid),
           'columns', coalesce(${NAMES_OF('k.conrelid', 'k.conkey')}, '[]'),
           'references', case when k.contype = 'f' then json_build_object(
             'table', (select c.relname from pg_class c where c.oid = k.confrelid),
             'columns', ${NAMES_OF('k.confrelid', 'k.confkey')}) end,
           'comment', obj_description(k.oid, 'pg_constraint'))
         order by strpos('pufxc', k.contype::text), k.conname collate "C"), '[]')
  from pg_constraint k where k.conrelid = r.oid and k.contype in ('p', 'u', 'f', 'x', 'c')`;

const INDEXES = `
  select coalesce(json_agg(json_build_object(
           'name', c.relname,
           'definition', case when i.indisunique then 'unique ' else '' end
                         || substr(d.text, strpos(d.text, ' USING ') + 7),
           'comment', obj_description(c.oid, 'pg_class')) order by c.relname collate "C"), '[]')
  from pg_index i
  join pg_class c on c.oid = i.indexrelid
  cross join lateral (select pg_get_indexdef(i.indexrelid) as text) d
  where i.indrelid = r.oid
    and not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u', 'x'))`;

const TRIGGERS = `
  select coalesce(json_agg(json_build_object(
           'name', t.tgname,
           'definition', substr(d.text, strpos(d.text, quote_ident(t.tgname) || ' ') + length(quote_ident(t.tgname)) + 1),
           'comment', obj_description(t.oid, 'pg_trigger')) order by t.tgname collate "C"), '[]')
  from pg_trigger t
  cross join lateral (select pg_get_triggerdef(t.oid) as text) d
  where t.tgrelid = r.oid and not t.tgisinternal`;

const RELATIONS = `
  select coalesce(json_agg(json_build_object(
           'kind', r.kind,
           'name', r.relname,
           'comment', obj_description(r.oid, 'pg_class'),
           'columns', (${COLUMNS}),
           'constraints', (${CONSTRAINTS}),
           'indexes', (${INDEXES}),
           'triggers', (${TRIGGERS})) order by r.kind <> 'table', r.kind, r.relname collate "C"), '[]')
  from relation r where r.kind <> 'sequence'`;

const DOMAINS = `
  select coalesce(json_agg(json_build_object(
           'name', t.typname,
           'base', format_type(t.typbasetype, t.typtypmod),
           'notNull', t.typnotnull,
           'default', t.typdefault,
           'checks', (select coalesce(json_agg(pg_get_constraintdef(k.oid) order by k.conname collate "C"), '[]')
                      from pg_constraint k where k.contypid = t.oid and k.contype = 'c'),
           'comment', obj_description(t.oid, 'pg_type')) order by t.typname collate "C"), '[]')
  from type_ t where t.kind = 'domain'`;

const TYPES = `
  select coalesce(json_agg(json_build_object('name', t.typname, 'comment', obj_description(t.oid, 'pg_type'))
                           order by t.typname collate "C"), '[]')
  from type_ t where t.kind = 'type'`;

const ARGUMENTS = `
  select coalesce(json_agg(json_build_object(
           'name', nullif(p.proargnames[a.n], ''),
           'type', format_type(a.type, null),
           'mode', case p.proargmodes[a.n] when 'o' then 'out' when 'b' then 'inout' when 'v' then 'variadic'
                                           when 't' then 'table' else 'in' end,
           'default', pg_get_function_arg_default(p.oid, a.n::integer)) order by a.n), '[]')
  from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) with ordinality a(type, n)`;

const ROUTINES = `
  select coalesce(json_agg(json_build_object(
           'kind', p.kind,
           'name', p.proname,
           'comment', obj_description(p.oid, 'pg_proc'),
           'arguments', (${ARGUMENTS}),
           'result', coalesce(pg_get_function_result(p.oid), 'void'),
           'setReturning', p.proretset,
           'rows', p.prorows,
           'volatility', case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end,
           'securityDefiner', p.prosecdef) order by p.name collate "C"), '[]')
  from routine p`;

const DESCRIPTION_QUERY = underPinnedSettings(`with ${NAMED_OBJECTS}
select json_build_object(
  'comment', (select obj_description(s.oid, 'pg_namespace') from schema_ s),
  'domains', (${DOMAINS}),
  'types', (${TYPES}),
  'relations', (${RELATIONS}),
  'routines', (${ROUTINES})) as description`);

/** Reads the schema with its comments, in one message to the server. Changes nothing. */
export async function describeSchema(client: CatalogClient): Promise<SchemaDescription> {
  const results = (await client.query(DESCRIPTION_QUERY)) as readonly { readonly rows: readonly unknown[] }[];
  const [row] = (results.at(-1)?.rows ?? []) as readonly { readonly description: SchemaDescription }[];
  if (row === undefined) throw new Error('the server returned no description');
  return withCommentsOfTables(normalize(row.description));
}

/** Copies the comment of the source column to a view's column without a comment. */
function withCommentsOfTables(schema: SchemaDescription): SchemaDescription {
  const relations = schema.relations.map((relation) => ({
    ...relation,
    columns: relation.columns.map((column) => ({
      ...column,
      comment: column.comment ?? sourceOfColumn(relation, column, schema.relations)?.column.comment ?? null,
    })),
  }));
  return { ...schema, relations };
}

/** Normalizes texts that depend on the server's version, except comments. */
const NORMALIZED = new Set(['type', 'base', 'definition', 'default', 'generated', 'result', 'checks']);

function normalize<T>(value: T, key = ''): T {
  if (Array.isArray(value)) return value.map((item) => normalize(item, key)) as T;
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).map(([name, part]) => [name, normalize(part, name)]),
    ) as T;
  }
  return typeof value === 'string' && NORMALIZED.has(key) ? (withoutSchema(value) as T) : value;
}

/** These documents cover one schema, so they omit its name. */
function withoutSchema(text: string): string {
  const tokens = new RegExp(`'(?:[^']|'')*'|\\b${MODELLED_SCHEMA}\\.(?=["a-z_])`, 'g');
  return withoutNeedlessQuotes(inOneLine(text))
    .trim()
    .replace(tokens, (token) => (token.startsWith("'") ? token : ''));
}
