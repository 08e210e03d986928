import pg, { type Client } from 'pg';
import type { Tree } from './generated-tree.ts';

/** A part of the cost of an insert into nodes. */
export interface Part {
  readonly name: string;
  /** Statements that remove it. */
  readonly removal: readonly string[];
  /** The columns that the insert has to set when the part is removed, beside those of a service. */
  readonly gives: 'nothing' | 'derived';
}

export type Insert = Readonly<Record<Part['gives'] | 'twin', string>>;

const NAME = "'measured-' || $1";

/** The columns that a service sets. */
function givenColumns(tree: Tree): Readonly<Record<string, string>> {
  return {
    backend_mount_id: tree.mountId,
    parent_id: String(tree.beforeFirst + 1),
    name: NAME,
    kind: "'file'",
    size_bytes: '$1',
    checksum: "'sha256:' || md5($1::text) || md5($1::text)",
    last_modified_at: 'now()',
  };
}

interface Column {
  readonly name: string;
  readonly value: unknown;
}

/** Inserts of file number $1: by a service, and with columns that the schema would set. */
export async function readInserts(client: Client, tree: Tree): Promise<Insert> {
  const { rows: columns } = await client.query<Column>(COLUMNS, [tree.beforeFirst + 1]);
  const given = givenColumns(tree);
  const name = String(columns.find((column) => column.name === 'name')?.value);
  const derived = columns
    .filter((column) => !Object.hasOwn(given, column.name))
    .map((column) => [column.name, literal(column.value, name)] as const);
  const insert = (table: string, values: readonly (readonly [string, string])[]) =>
    `insert into ${table} (${values.map(([column]) => column).join(', ')})
     values (${values.map(([, value]) => value).join(', ')})`;
  const all = [...Object.entries(given), ...derived];
  return {
    nothing: insert('filestore.nodes', Object.entries(given)),
    derived: insert('filestore.nodes', all),
    twin: insert('twin.nodes', all),
  };
}

/** The value of another file in that directory; in a path, with the new file's name. */
function literal(value: unknown, name: string): string {
  const text = typeof value === 'object' ? JSON.stringify(value) : String(value);
  return text.endsWith(`/${name}`)
    ? `${pg.escapeLiteral(text.slice(0, -name.length))} || ${NAME}`
    : pg.escapeLiteral(text);
}

/** Reads the parts of the cost of an insert from the catalog, for any form of the schema. */
export async function readParts(client: Client): Promise<readonly Part[]> {
  const { rows } = await client.query<Piece>(PIECES);
  const of = (...kinds: readonly Piece['kind'][]) => rows.filter(({ kind }) => kinds.includes(kind));
  const each = (kind: Piece['kind'], gives: Part['gives'] = 'nothing'): readonly Part[] =>
    of(kind).map(({ name, removal }) => ({ name: `${kind} ${name}`, removal: [removal], gives }));
  const together = (name: string, kind: Piece['kind']): readonly Part[] =>
    of(kind).length === 0
      ? []
      : [
          {
            name: `${name} (${of(kind).length})`,
            removal: of(kind).map(({ removal }) => removal),
            gives: 'nothing',
          },
        ];
  const checks = each('check');
  const guards = of('check', 'domain check', 'key', 'trigger before', 'trigger after');
  return [
    ...checks,
    ...(checks.length > 1 ? together('all checks of the table', 'check') : []),
    ...together('checks of the domains', 'domain check'),
    ...each('key'),
    ...each('trigger before', 'derived'),
    ...each('trigger after'),
    {
      name: 'all of these, with the indexes kept',
      removal: guards.map(({ removal }) => removal),
      gives: 'derived',
    },
    ...together('indexes without a constraint', 'index'),
  ];
}

interface Piece {
  readonly kind: 'check' | 'domain check' | 'key' | 'trigger before' | 'trigger after' | 'index';
  readonly name: string;
  readonly removal: string;
}

// A default with a function call is the current time or the next id, which the writer leaves to the table.
const COLUMNS = `
  select a.attname as name, v.value
  from (
    select to_jsonb(n) as node
    from filestore.nodes n
    where n.parent_id = $1 and n.kind = 'file'
    order by n.id
    limit 1
  ) f
  cross join lateral jsonb_each(f.node) v (name, value)
  join pg_attribute a on a.attrelid = 'filestore.nodes'::regclass and a.attname = v.name
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
  where v.value <> 'null'
    and a.attidentity = ''
    and strpos(coalesce(pg_get_expr(d.adbin, d.adrelid), ''), '(') = 0
  order by a.attnum`;

const PIECES = `
  with nodes (oid) as (select 'filestore.nodes'::regclass::oid)
  select 'check' as kind, c.conname as name, format('alter table filestore.nodes drop constraint %I', c.conname) as removal
  from pg_constraint c
  join nodes on c.conrelid = nodes.oid
  where c.contype = 'c'
  union all
  select 'domain check', c.conname, format('alter domain %s drop constraint %I', c.contypid::regtype, c.conname)
  from pg_constraint c
  where c.contype = 'c'
    and c.contypid in (
      select a.atttypid from pg_attribute a join nodes on a.attrelid = nodes.oid where not a.attisdropped
    )
  union all
  select 'key', c.conname, format('alter table filestore.nodes drop constraint %I', c.conname)
  from pg_constraint c
  join nodes on c.conrelid = nodes.oid
  where c.contype = 'f'
  union all
  -- Of tgtype, bit 2 is "before" and bit 4 is "insert".
  select case t.tgtype::integer & 2 when 0 then 'trigger after' else 'trigger before' end, t.tgname,
    format('drop trigger %I on filestore.nodes', t.tgname)
  from pg_trigger t
  join nodes on t.tgrelid = nodes.oid
  where not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype::integer & 4 <> 0
  union all
  select 'index', i.indexrelid::regclass::text, format('drop index %s', i.indexrelid::regclass)
  from pg_index i
  join nodes on i.indrelid = nodes.oid
  where not exists (select from pg_constraint c where c.conindid = i.indexrelid)
  order by 2`;
