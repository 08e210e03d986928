import { afterEach, beforeEach, expect, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { openSide } from '../../src/move/side.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';
import { until } from '../support/until.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);
let cable: Cable;

beforeEach(async () => {
  cable = await startProxy(database().url);
});
afterEach(() => cable.stop());

test.each(['set statement_timeout', 'pg_backend_pid'])(
  'a move whose connection is cut at one of its first statements (%s) says so',
  async (statement) => {
    const cut = cable.cutAt(statement, 'before');
    await expect(openSide(connectionTo(cable.url))).rejects.toMatchObject({ code: 'CONNECTION_LOST' });
    await cut;
  },
);

test('a move that cannot use its connection closes it, so that the process can end', async () => {
  const { url } = await createRole();
  const superuser = await database().connectAsSuperuser();
  await superuser.query('revoke execute on function pg_catalog.pg_backend_pid() from public');
  const through = new URL(cable.url);
  const { username, password } = new URL(url);
  Object.assign(through, { username, password });
  await expect(openSide(connectionTo(through.href))).rejects.toMatchObject({ code: '42501' });
  await until(() => cable.connections === 0);
});
