import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { startOwnServer } from '../support/servers/own-server.ts';

const SECRET = 'hunter2-Zq9x';

const INSERT = `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, config)
  values ($1, 'local', $2, $3) returning id`;

const REFUSED = {
  code: 'FS422',
  constraint: 'backend_mounts_secret_check',
  hint: expect.stringContaining('credentials_ref'),
};

test('the server logs the refusal without the secret, unless the secret is in the text of the statement', async () => {
  const server = await startOwnServer({
    settings: ['log_error_verbosity=verbose', 'log_min_error_statement=error'],
  });
  const client = new pg.Client(server.url);
  try {
    await runMigrations({ connection: connectionTo(server.url) });
    await client.connect();
    // As a parameter: the server logs the statement without the values.
    await expect(
      client.query(INSERT, ['m', '/m', JSON.stringify({ password: SECRET })]),
    ).rejects.toMatchObject(REFUSED);
    // As text, on a server that does not log statements: only the message of the schema is logged.
    await client.query('set log_min_error_statement = panic');
    await expect(
      client.query(
        `insert into filestore.backend_mounts (mount_key, backend_kind, root_path, config)
         values ('m', 'local', '/m', '{"password": "${SECRET}"}')`,
      ),
    ).rejects.toMatchObject(REFUSED);
    const log = readFileSync(join(server.folder, 'postgres.log'), 'utf8');
    expect(log.match(/ERROR: .*config contains a secret: password/g)).toHaveLength(2);
    expect(log.match(/STATEMENT: /g)).toHaveLength(1);
    expect(log).not.toContain(SECRET);
  } finally {
    await client.end();
    await server.stop();
  }
});
