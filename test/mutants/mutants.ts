import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Client } from 'pg';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { type Edit, editsOf } from './edits.ts';

/** One change of one object of the schema. */
export interface Mutant {
  /** Stable while the changed line stays the same: object, kind, and a hash of the line. */
  readonly id: string;
  /** Name of the function, table, domain, trigger or view. */
  readonly object: string;
  readonly kind: string;
  /** Where it is, and what it is changed into. */
  readonly where: string;
  readonly change: string;
  /** Run on top of the migrated database. */
  readonly sql: string;
  /** Takes it back, unless only a new database does. */
  readonly undo?: string;
}

type Change = Omit<Mutant, 'id'>;

const FIXTURES = join(PACKAGE_ROOT, 'migrations/fixtures');

/** All mutants, in the order of their objects. */
export async function listMutants(migrated: Client): Promise<readonly Mutant[]> {
  const changes = [
    ...['functions', 'triggers', 'views'].flatMap((folder) =>
      readdirSync(join(FIXTURES, folder))
        .sort()
        .flatMap((file) => changesOfFixture(join(folder, file))),
    ),
    ...(await changesOfCatalog(migrated)),
  ];
  const seen = new Map<string, number>();
  return changes.map((change) => {
    const base = `${change.object}/${change.kind.replaceAll(' ', '-')}/${hash(change.change)}`;
    const times = (seen.get(base) ?? 0) + 1;
    seen.set(base, times);
    return { id: times === 1 ? base : `${base}.${times}`, ...change };
  });
}

export const hash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 6);

function changesOfFixture(path: string): readonly Change[] {
  const sql = readFileSync(join(FIXTURES, path), 'utf8');
  const object = basename(path, '.sql');
  const edits: Edit[] = path.startsWith('functions')
    ? [...editsOfHeader(sql), ...editsOf(sql, ...bodyOf(sql))]
    : path.startsWith('views')
      ? [...editsOf(sql, sql.search(/^as$|\bas\n/m), sql.indexOf(';\n\ncomment'))]
      : editsOfTrigger(sql);
  if (object === 'access_rights') edits.push(...editsOfRights(sql));
  // A dropped view would take those that read it along.
  const runnable = (text: string) =>
    path.startsWith('views')
      ? text.replace(/^drop view .*;$/m, '').replace('create view', 'create or replace view')
      : text;
  return edits.map((edit) => {
    const { where, change } = describe(sql, edit);
    const text = sql.slice(0, edit.start) + edit.text + sql.slice(edit.end);
    return {
      object,
      kind: edit.kind,
      where: `${path}:${where}`,
      change,
      sql: runnable(text),
      undo: runnable(sql),
    };
  });
}

/** The number of the line of an edit, and how the lines that it touches read before and after it. */
function describe(sql: string, { start, end, text }: Edit): { where: string; change: string } {
  const from = sql.lastIndexOf('\n', start - 1) + 1;
  const to = sql.indexOf('\n', end) < 0 ? sql.length : sql.indexOf('\n', end);
  const short = (part: string) => {
    const line = part.replace(/\s+/g, ' ').trim();
    return line.length > 160 ? `${line.slice(0, 100)} … ${line.slice(-50)}` : line;
  };
  return {
    where: String(sql.slice(0, start).split('\n').length),
    change: `${short(sql.slice(from, to))} → ${short(sql.slice(from, start) + text + sql.slice(end, to))}`,
  };
}

function bodyOf(sql: string): [from: number, to: number] {
  const quoted = sql.indexOf('\nas $$');
  if (quoted >= 0) return [quoted + 6, sql.indexOf('\n$$;', quoted)];
  const from = sql.search(/^(return\b|begin atomic)/m);
  return [from, sql.indexOf('\n\ncomment on', from)];
}

function editsOfHeader(sql: string): Edit[] {
  const [to] = bodyOf(sql);
  const edits: Edit[] = [];
  for (const match of sql.slice(0, to).matchAll(/^(security definer|strict|set (\w+) .*)$/gm)) {
    const kind =
      match[2] === undefined
        ? `${match[1]} left out`
        : match[2] === 'search_path'
          ? 'search_path not pinned'
          : 'planner setting left out';
    edits.push({ kind, start: match.index, end: match.index + match[0].length, text: '' });
  }
  for (const { index, 0: line } of sql.matchAll(/^revoke all on (\w+ .*) from public;$/gm))
    edits.push({
      kind: 'right added',
      start: index,
      end: index + line.length,
      text: line
        .replace('revoke all', 'grant execute')
        .replace(/public;$/, 'public;')
        .replace(' from ', ' to '),
    });
  return edits;
}

/** Takes each function from the list of its level, or gives it to the level below. */
function editsOfRights(sql: string): readonly Edit[] {
  const edits: Edit[] = [];
  const lists = [...sql.matchAll(/^ {2}\w+ +constant text\[\] := '\{\n([\s\S]*?)\n {2}\}';$/gm)];
  lists.forEach((list, at) => {
    for (const { index, 0: line, 1: name } of (list[1] ?? '').matchAll(/^ +(\w+),?\n?/gm)) {
      const start = list.index + list[0].indexOf('{\n') + 2 + index;
      const isLast = !line.includes(',');
      const before = isLast ? sql.lastIndexOf(',', start) : start;
      edits.push({ kind: 'right left out', start: before, end: start + line.length, text: '' });
      const lower = lists[at - 1];
      if (lower === undefined) continue;
      const there = lower.index + lower[0].indexOf('{\n') + 2;
      edits.push({ kind: 'right added', start: there, end: there, text: `    ${name},\n` });
    }
  });
  return edits;
}

function editsOfTrigger(sql: string): Edit[] {
  const from = sql.search(/^create (constraint )?trigger/m);
  const to = sql.indexOf(';', from);
  const edits: Edit[] = [{ kind: 'trigger dropped', start: from, end: sql.length, text: '' }];
  const text = sql.slice(from, to);
  for (const pattern of [/ or (insert|update|delete)\b/g, /(?<=(before|after) )(insert|update|delete) or /g])
    for (const { index, 0: found } of text.matchAll(pattern))
      edits.push({ kind: 'event left out', start: from + index, end: from + index + found.length, text: '' });
  const columns = /update of([\s\S]*?)\n? +on filestore/.exec(text);
  if (columns?.[1] !== undefined) {
    const names = columns[1].split(',').map((name) => name.trim());
    const start = from + columns.index + 'update of'.length;
    for (const name of names.length > 1 ? names : []) {
      const others = names.filter((other) => other !== name).join(', ');
      edits.push({ kind: 'column left out', start, end: start + columns[1].length, text: ` ${others}` });
    }
  }
  const when = text.search(/^ +when \(/m);
  if (when >= 0) {
    const start = from + text.indexOf('(', when) + 1;
    const end = from + text.search(/\)\n +execute/);
    edits.push({ kind: 'condition left out', start, end, text: 'true' }, ...editsOf(sql, start, end));
  }
  return edits;
}

const CATALOG = `
select case when c.conrelid <> 0 then 'table' else 'domain' end as target,
       coalesce(nullif(c.conrelid, 0)::regclass::text, c.contypid::regtype::text) as name, c.contype::text as kind,
       c.conname as part, pg_get_constraintdef(c.oid) as definition
from pg_constraint c
where c.connamespace = 'filestore'::regnamespace and c.contype in ('c', 'f', 'p', 'u', 'x')
union all
select 'table', i.indrelid::regclass::text, case when i.indisunique then 'unique' else 'index' end,
       i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid)
from pg_index i join pg_class t on t.oid = i.indrelid
where t.relnamespace = 'filestore'::regnamespace
  and not exists (select from pg_constraint c where c.conindid = i.indexrelid and c.contype in ('p', 'u', 'x'))
union all
select 'table', a.attrelid::regclass::text, part.kind, a.attname, part.definition
from pg_attribute a
join pg_class t on t.oid = a.attrelid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
cross join lateral (values
  ('not null', case when a.attnotnull and a.attidentity = '' and not exists (
     select from pg_index i where i.indrelid = a.attrelid and i.indisprimary and a.attnum = any (i.indkey)) then '' end),
  ('default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end)
) as part (kind, definition)
where t.relnamespace = 'filestore'::regnamespace and t.relkind = 'r' and a.attnum > 0 and not a.attisdropped
  and part.definition is not null
union all
select 'table', c.oid::regclass::text, 'right', privilege, ''
from pg_class c, unnest(array['select', 'insert', 'update', 'delete', 'truncate']) as privilege
where c.relnamespace = 'filestore'::regnamespace and c.relkind = 'r'
order by 2, 3, 4`;

interface Part {
  readonly target: string;
  readonly name: string;
  readonly kind: string;
  readonly part: string;
  readonly definition: string;
}

/** Changes of what has no fixture: constraints, indexes, columns and rights of tables. */
async function changesOfCatalog(migrated: Client): Promise<readonly Change[]> {
  await migrated.query("set search_path = ''");
  const { rows } = await migrated.query<Part>(CATALOG);
  return rows.flatMap(changesOfPart);
}

function changesOfPart({ target, name, kind, part, definition }: Part): readonly Change[] {
  const make = (what: string, change: string, sql: string): Change => ({
    object: name.replace('filestore.', ''),
    kind: what,
    where: part,
    change,
    sql,
  });
  const alter = `alter ${target} ${name}`;
  if (kind === 'right')
    return [make('right added', `${part} to public`, `grant ${part} on ${name} to public`)];
  if (kind === 'not null') return [make('not null dropped', part, `${alter} alter ${part} drop not null`)];
  if (kind === 'default')
    return [make('default dropped', `${part} default ${definition}`, `${alter} alter ${part} drop default`)];
  if (kind === 'index') return [make('index dropped', definition, `drop index ${part}`)];
  if (kind === 'unique') {
    const dropped = `drop index ${part} cascade`;
    const from = definition.indexOf(' WHERE ');
    return [
      make('unique index dropped', definition, dropped),
      ...(from < 0 ? [] : editsOf(definition, from)).map((edit) => {
        const text = definition.slice(0, edit.start) + edit.text + definition.slice(edit.end);
        return make('unique index widened', `${definition} → ${text}`, `drop index ${part}; ${text}`);
      }),
    ];
  }
  const drop = `${alter} drop constraint ${part}`;
  const changed = (what: string, text: string) =>
    make(what, `${definition} → ${text}`, `${drop}; ${alter} add constraint ${part} ${text}`);
  const dropped = make('constraint dropped', definition, `${drop} cascade`);
  if (kind === 'c') {
    const edits = editsOf(definition).filter(({ start, end }) => end - start < definition.length - 12);
    return [
      dropped,
      ...edits.map((edit) =>
        changed('check weakened', definition.slice(0, edit.start) + edit.text + definition.slice(edit.end)),
      ),
    ];
  }
  if (kind !== 'f') return [dropped];
  return [
    dropped,
    ...[...definition.matchAll(/ ON (UPDATE|DELETE) \w+( NULL)?| DEFERRABLE.*/g)].map(({ 0: found }) =>
      changed('foreign key changed', definition.replace(found, '')),
    ),
  ];
}
