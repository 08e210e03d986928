import type { ClientBase } from 'pg';
import { codeOf } from '../cause-codes.ts';
import { FilestoreError, SettingsError } from '../errors.ts';
import { isQuotable, paragraph } from '../text.ts';

/** The id of a node, as typed calls take it. */
export type NodeId = string | number | bigint;

/** Tables with rows of one node, and the column with its id. */
const NODE_COLUMNS: Readonly<Record<string, string>> = {
  nodes: 'id',
  snapshots: 'id',
  node_sightings: 'node_id',
};

/** Every moment at which something happened in the database. The content of a node has the moments of its file. */
const FIND_MOMENTS = `
  select
    c.relname                                             as name,
    array_agg(quote_ident(a.attname) order by a.attnum)   as columns,
    array(
      select format(
        '%s trigger %I',
        case t.tgenabled when 'A' then 'enable always' when 'R' then 'enable replica' else 'enable' end,
        t.tgname
      )
      from pg_trigger t
      where t.tgrelid = c.oid and not t.tgisinternal and t.tgenabled <> 'D'
    )                                                     as enable
  from pg_class c
  join pg_attribute a on a.attrelid = c.oid
  where c.relnamespace = 'filestore'::regnamespace
    and c.relkind = 'r'
    and a.attnum > 0
    and not a.attisdropped
    and a.atttypid = 'timestamptz'::regtype
    and a.attname <> all (filestore.content_columns())
  group by c.oid, c.relname
  order by c.relname`;

interface TableWithMoments {
  readonly name: string;
  readonly columns: readonly string[];
  /** Actions of `alter table` that enable its triggers again. */
  readonly enable: readonly string[];
}

const LOCK_WAIT = '10s';
const LOCK_NOT_AVAILABLE = '55P03';

/**
 * Moves rows into the past, as if everything had happened that much earlier. The triggers of the schema, which would set
 * the moments, are disabled in the same transaction, so no other session notices.
 * @param owner Connection of the owner of the schema.
 * @param age An interval of Postgres, such as `31 days`. A month has 30 days, so that the order of moments stays.
 * @param nodeIds Only the rows of these nodes: themselves, their versions and their sightings.
 * @throws {SettingsError} when `age` is not a positive interval.
 * @throws {FilestoreError} `TEST_DATABASE_FAILED` when another transaction holds a lock on a table for 10 s.
 */
export async function makeOlder(owner: ClientBase, age: string, nodeIds?: readonly NodeId[]): Promise<void> {
  const milliseconds = await readAge(owner, age);
  await owner.query('begin');
  try {
    await owner.query(`set local lock_timeout = '${LOCK_WAIT}'`);
    const { rows: tables } = await owner.query<TableWithMoments>(FIND_MOMENTS);
    for (const table of tables) await shiftTable(owner, table, milliseconds, nodeIds);
    await owner.query('commit');
  } catch (cause) {
    await owner.query('rollback');
    if (codeOf(cause) !== LOCK_NOT_AVAILABLE) throw cause;
    const message = paragraph(
      `No row was made older: another transaction has held a lock on a table for ${LOCK_WAIT}.`,
      'Commit or roll back the transactions of the test first.',
    );
    throw new FilestoreError('TEST_DATABASE_FAILED', message, { cause });
  }
}

async function readAge(owner: ClientBase, age: string): Promise<string> {
  const { rows } = await owner
    .query<{ milliseconds: string }>(
      'select floor(extract(epoch from $1::interval) * 1000)::bigint::text as milliseconds',
      [age],
    )
    .catch((cause) => {
      throw invalidAge(age, cause);
    });
  const milliseconds = rows[0]?.milliseconds;
  if (milliseconds === undefined || Number(milliseconds) <= 0) throw invalidAge(age);
  return milliseconds;
}

function invalidAge(age: string, cause?: unknown): SettingsError {
  const given = isQuotable(String(age)) ? `"${age}"` : 'a text that is not shown here';
  const message = paragraph(
    `age of makeOlder is ${given}, which is not a positive interval of Postgres.`,
    "Write it like '31 days' or '90 minutes'.",
  );
  return new SettingsError('age', message, { cause });
}

async function shiftTable(
  owner: ClientBase,
  { name, columns, enable }: TableWithMoments,
  milliseconds: string,
  nodeIds: readonly NodeId[] | undefined,
): Promise<void> {
  const key = NODE_COLUMNS[name];
  if (nodeIds !== undefined && key === undefined) return;
  const changes = columns.map((column) => `${column} = ${column} - $1::float8 * interval '1 ms'`);
  const update = `update filestore.${name} set ${changes.join(', ')}`;
  if (enable.length > 0) await owner.query(`alter table filestore.${name} disable trigger user`);
  if (nodeIds === undefined) await owner.query(update, [milliseconds]);
  else await owner.query(`${update} where ${key} = any($2::bigint[])`, [milliseconds, nodeIds.map(String)]);
  if (enable.length > 0) await owner.query(`alter table filestore.${name} ${enable.join(', ')}`);
}
