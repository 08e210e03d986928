import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { withClient } from '../../../src/testing/with-client.ts';

const run = promisify(execFile);

/**
 * The folder of pg_dump and pg_restore of the server's major version. An older pg_dump cannot read the server, and a
 * newer one may write SQL that it does not accept. The embedded Postgres has neither.
 */
export async function findDumpTools(serverUrl: string): Promise<string | undefined> {
  const major = await serverMajor(serverUrl);
  const folders = [
    ...(process.env.TEST_POSTGRES_BIN ? [process.env.TEST_POSTGRES_BIN] : []),
    join('/usr/lib/postgresql', major, 'bin'),
    ...(process.env.PATH ?? '').split(delimiter),
  ];
  for (const folder of folders) {
    const isThere = ['pg_dump', 'pg_restore'].every((name) => existsSync(join(folder, name)));
    if (isThere && (await toolMajor(join(folder, 'pg_dump'))) === major) return folder;
  }
  console.warn(`Tests are skipped: there is no pg_dump ${major}, the version of the server.`);
  return undefined;
}

async function serverMajor(url: string): Promise<string> {
  const { rows } = await withClient(url, (client) =>
    client.query("select current_setting('server_version_num')::integer / 10000 as major"),
  );
  return String(rows[0].major);
}

/** Debian's wrapper in the PATH prints the version of the program that it chooses. */
async function toolMajor(program: string): Promise<string | undefined> {
  const { stdout } = await run(program, ['--version']);
  return /\) (\d+)/.exec(stdout)?.[1];
}
