import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile, rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);
const createRole = rolesForFile(database);

const EXECUTABLE = `select p.oid::regprocedure as name from pg_proc p
  where p.pronamespace = 'filestore'::regnamespace and p.prosrc !~ 'range_constructor'
    and has_function_privilege('public', p.oid, 'execute')`;

test.each([
  [
    'grant_access',
    async () => `select filestore.grant_access('${(await createRole('_other')).name}', 'reader')`,
  ],
  [
    'revoke_access',
    async () => {
      const { name } = await createRole('_revoked');
      await database().query("select filestore.grant_access($1, 'reader')", [name]);
      return `select filestore.revoke_access('${name}')`;
    },
  ],
  ['renew_access', async () => 'select filestore.renew_access()'],
])('%s takes the functions that a restore left to everyone', async (_, makeCall) => {
  const reader = await connectAs('reader');
  const call = await makeCall();
  // As "pg_restore --no-privileges" leaves them, and partly a restore that lacks a role.
  await database().query('grant execute on all routines in schema filestore to public');
  await database().query(call);
  expect(await database().query(EXECUTABLE)).toEqual([]);
  await expect(reader.query("select filestore.purge_deleted('0')")).rejects.toMatchObject({ code: '42501' });
});
