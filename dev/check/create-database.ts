import { withClient } from '../../src/testing/with-client.ts';

/**
 * Creates a database on the server of the URL.
 * @param template The name of a database without connections.
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
