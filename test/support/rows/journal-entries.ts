import { type TestDatabase, withoutTriggers } from '../databases/test-database.ts';
import { one, type Sql } from './nodes.ts';

export const BEGIN =
  'select b.is_new, (b.entry).* from filestore.begin_command($1, $2, $3, $4, $5, retry_failed => $6) b';
export const START = 'select * from filestore.start_command($1)';
export const FINISH = 'select * from filestore.finish_command($1, $2, $3, $4)';

/** The arguments of begin_command. Those that are left out are null or have their default. */
export interface CommandRequest {
  readonly command?: string;
  readonly parameters?: object;
  readonly mount?: number | null;
  readonly principal?: string | null;
  readonly key?: string | null;
  readonly retryFailed?: boolean;
}

/** The values of a request for the statement BEGIN. */
export function valuesOf(request: CommandRequest): unknown[] {
  const {
    command = 'move',
    parameters = {},
    mount = null,
    principal = null,
    key = null,
    retryFailed = false,
  } = request;
  return [command, parameters, mount, principal, key, retryFailed];
}

export const begin = (sql: Sql, request: CommandRequest = {}) => one(sql, BEGIN, valuesOf(request));
export const finish = (
  sql: Sql,
  id: string,
  status: string,
  result: object | null = null,
  error: object | null = null,
) => one(sql, FINISH, [id, status, result, error]);
export const queueCommand = async (sql: Sql) =>
  (await one(sql, "select (entry).id from filestore.begin_command('move', queue => true)")).id as string;

/** Empties the journal as an operator does: ends all entries first. */
export async function emptyJournal(sql: Sql): Promise<void> {
  await sql.query("update filestore.journal_entries set status = 'canceled' where completed_at is null");
  await sql.query('delete from filestore.journal_entries');
}

/** Writes entries that are so many days old, and returns their ids. Triggers would refuse them. */
export async function recordEntries(
  database: TestDatabase,
  status: string,
  ...daysAgo: readonly number[]
): Promise<readonly string[]> {
  const { rows } = await withoutTriggers(database, (client) =>
    client.query<{ id: string }>(
      `insert into filestore.journal_entries (command, status, error, created_at, started_at, completed_at)
       select 'move', $1::text, case when $1 = 'failed' then '{}'::jsonb end, at,
              case when $1 <> 'queued' then at end, case when $1 not in ('queued', 'running') then at end
       from (select now() - make_interval(days => d) as at from unnest($2::integer[]) d) times
       returning id`,
      [status, daysAgo],
    ),
  );
  return rows.map(({ id }) => id);
}
