import type { Client } from 'pg';

/**
 * Creates twin.nodes: the columns of filestore.nodes with their base types and the same indexes, but no key, check,
 * domain or trigger, and a copy of every row. It shows the cost of a table without guards.
 */
export async function createTwin(client: Client): Promise<void> {
  const { rows: columns } = await client.query<Column>(COLUMNS);
  await client.query('create schema twin');
  await client.query(
    `create table twin.nodes (${columns.map(({ definition }) => definition).join(', ')}) ${columns[0]?.storage}`,
  );
  const names = columns.map(({ name }) => name).join(', ');
  await client.query(
    `insert into twin.nodes (${names}) overriding system value select ${names} from filestore.nodes order by id`,
  );
  await client.query(
    "select setval(pg_get_serial_sequence('twin.nodes', 'id'), (select max(id) from filestore.nodes))",
  );
  const { rows: indexes } = await client.query<{ readonly definition: string }>(INDEXES);
  for (const { definition } of indexes) await client.query(definition);
  await client.query('vacuum analyze twin.nodes, filestore.nodes');
}

/** Changes rows of the twin. Throws if the number of changed rows is not the expected one. */
export async function changeTwin(
  client: Client,
  rows: number,
  text: string,
  values: readonly unknown[] = [],
): Promise<void> {
  const { rowCount } = await client.query(text, [...values]);
  if (rowCount !== rows) throw new Error(`${rowCount} rows of the twin changed instead of ${rows}`);
}

interface Column {
  readonly name: string;
  readonly definition: string;
  readonly storage: string;
}

const COLUMNS = `
  select
    a.attname as name,
    concat_ws(' ',
      quote_ident(a.attname),
      format_type(case t.typtype when 'd' then t.typbasetype else t.oid end, a.atttypmod),
      case when a.attcollation <> 0 then 'collate ' || a.attcollation::regcollation end,
      case when a.attnotnull then 'not null' end,
      case
        when a.attidentity <> '' then 'generated always as identity'
        else 'default ' || pg_get_expr(d.adbin, d.adrelid)
      end
    ) as definition,
    coalesce('with (' || array_to_string(c.reloptions, ', ') || ')', '') as storage
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid
  join pg_type t on t.oid = a.atttypid
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where a.attrelid = 'filestore.nodes'::regclass
    and a.attnum > 0
    and not a.attisdropped
  order by a.attnum`;

const INDEXES = `
  select replace(pg_get_indexdef(i.indexrelid), ' ON filestore.nodes ', ' ON twin.nodes ') as definition
  from pg_index i
  where i.indrelid = 'filestore.nodes'::regclass
  order by i.indexrelid`;
