import { beforeEach, expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { createImportMount, key } from '../support/rows/staged.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);

beforeEach(() => createImportMount(database(), key));

test.each([
  ['nodes', 'path text, kind text', "'old.staged'"],
  ['versions', 'id bigint, version integer, updated_at timestamptz', "'old.nodes', 'old.staged'"],
  ['entries', 'id bigint, command text, status text', "null, null, 'old.staged'"],
])('an import refuses staged %s of which a policy may hide some', async (_, columns, tables) => {
  // Not the owner of the schema, who is a superuser in most runs: no policy holds for superusers.
  const { quotedName, connect } = await createRole();
  await database().query(`
    create schema old;
    create table old.nodes (id bigint, parent_id bigint, name text, kind text);
    create table old.staged (${columns});
    alter table old.staged enable row level security;
    grant usage on schema filestore, old to ${quotedName};
    grant select on all tables in schema filestore, old to ${quotedName};
    grant select on all sequences in schema filestore to ${quotedName};
    grant execute on all functions in schema filestore to ${quotedName};
  `);
  const check = `select * from filestore.check_import('${key}', ${tables})`;
  await expect((await connect()).query(check)).rejects.toMatchObject({
    code: '42501',
    message: expect.stringContaining('row-level security policy for table "staged"'),
  });
});
