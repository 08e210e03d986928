import pg from 'pg';

/** Runs `work` with a connection of its own. */
export async function withClient<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client(url);
  // Whoever waits for an answer is told; without a listener the process would end.
  client.on('error', () => undefined);
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/**
 * Makes a database beside the one of the URL.
 * @param template The name of one that nobody is connected to.
 * @returns its URL.
 */
export async function createDatabase(url: string, name: string, template = 'template0'): Promise<string> {
  await withClient(url, (client) =>
    client.query(
      template === 'template0'
        ? `create database ${name} encoding 'UTF8' template template0`
        : `create database ${name} template ${template}`,
    ),
  );
  const other = new URL(url);
  other.pathname = `/${name}`;
  return other.href;
}

/** Does `work` in a transaction that leaves nothing behind. */
export async function withRollback<T>(client: pg.Client, work: () => Promise<T>): Promise<T> {
  await client.query('begin');
  try {
    return await work();
  } finally {
    await client.query('rollback');
  }
}
