import pg, { type Client } from 'pg';

/** The state of a server session that the next client of a pooler would get. */
export interface SessionState {
  readonly pid: number;
  /** Settings of the session, except those that the pooler sets for each client. */
  readonly settings: Readonly<Record<string, string>>;
  readonly applicationName: string;
  /** A setting that the survey makes for its transaction; the server does not list it among its settings. */
  readonly preflight: string | null;
  readonly advisoryLocks: number;
  readonly preparedStatements: number;
  readonly temporaryTables: number;
}

/** Connects several clients at once through a pooler, and reads the state of their server sessions. */
export async function lookAtSessions(url: string, count: number): Promise<readonly SessionState[]> {
  const clients = Array.from({ length: count }, () => new pg.Client(url));
  try {
    // One after the other; each client keeps its session.
    for (const client of clients) {
      client.on('error', () => undefined);
      await client.connect();
      await client.query('select');
    }
    return await Promise.all(clients.map(look));
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
}

async function look(client: Client): Promise<SessionState> {
  const { rows } = await client.query<SessionState>(`
    select
      pg_backend_pid() as pid,
      (
        select coalesce(json_object_agg(name, setting order by name), '{}')
        from pg_settings
        where source = 'session' and name <> 'application_name' and setting <> ''
      ) as settings,
      current_setting('application_name') as "applicationName",
      nullif(current_setting('filestore.preflight', true), '') as preflight,
      (
        select count(*)::integer from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()
      ) as "advisoryLocks",
      (select count(*)::integer from pg_prepared_statements) as "preparedStatements",
      (select count(*)::integer from pg_class where relpersistence = 't') as "temporaryTables"
  `);
  if (rows[0] === undefined) throw new Error('the server returned no row');
  return rows[0];
}
