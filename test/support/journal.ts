import { one, type Sql } from './tree.ts';

export const BEGIN =
  'select b.is_new, (b.entry).* from filestore.begin_command($1, $2, $3, $4, $5, retry_failed => $6) b';
export const START = 'select * from filestore.start_command($1)';
export const FINISH = 'select * from filestore.finish_command($1, $2, $3, $4)';

/** What a command is asked for with; what is left out is null or its default. */
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

/** As an operator empties it: what has not ended is ended first. */
export async function emptyJournal(sql: Sql): Promise<void> {
  await sql.query(
    `update filestore.journal_entries set status = 'canceled', completed_at = now() where completed_at is null`,
  );
  await sql.query('delete from filestore.journal_entries');
}
