import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { migrationStatus } from '../../src/index.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

// A server that asks no one for a password, as on a developer's machine.
let server: OwnServer;
beforeAll(async () => {
  server = await startOwnServer();
  const admin = new pg.Client(server.url);
  await admin.connect();
  await admin.query('create role retired nologin');
  await admin.query('create role excluded login');
  await admin.end();
  const rules = join(server.folder, 'server', 'data', 'pg_hba.conf');
  writeFileSync(rules, 'local all excluded reject\nlocal all all trust\nhost all all 127.0.0.1/32 trust\n');
  await server.restart('fast');
});
afterAll(() => server?.stop());

function statusAs(role: string): Promise<unknown> {
  const url = new URL(server.url);
  url.username = role;
  url.password = '';
  return migrationStatus({ env: { DATABASE_URL: url.href } });
}

test.each(['missing', 'retired'])(
  'a role that may not log in is named (%s), and no rule is blamed',
  async (role) => {
    await expect(statusAs(role)).rejects.toMatchObject({
      code: 'CONNECTION_FAILED',
      message: expect.stringMatching(
        new RegExp(
          `^(?!.*pg_hba).*user "${role}" does not exist on the server, or may not log in\\. .*create role`,
        ),
      ),
    });
  },
);

test('the error for a role that a rule refuses names the rule', async () => {
  await expect(statusAs('excluded')).rejects.toMatchObject({
    code: 'CONNECTION_FAILED',
    message: expect.stringMatching(/rules \(pg_hba\.conf\) do not allow user "excluded"/),
  });
});
