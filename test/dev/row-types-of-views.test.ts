import { describe, expect, test } from 'vitest';
import { fieldsOf, typesOf } from '../support/databases/row-types.ts';
import { databaseRolledBackAfterEachTest } from '../support/databases/test-database.ts';

const changed = databaseRolledBackAfterEachTest();

describe("a view's column", () => {
  test('has the type and the nullability of the column that migrations/facts.ts names', async () => {
    expect(fieldsOf(await typesOf(changed), 'ActiveNodeRow')).toMatchObject({
      id: 'string',
      parent_id: 'string | null',
      metadata: 'JsonObject',
      backend_kind: "'local' | 's3'",
      mount_state: expect.stringMatching(/^'active' \| /),
      last_seen_at: 'Date | null',
      location: 'string | null',
    });
  });

  test('may be null in a view that has no facts, or if its type is another one', async () => {
    await changed().query(`
      create view filestore.odd_views as select id, access_mode from filestore.backend_mounts;
      drop view filestore.view_filestore_directories;
      create view filestore.view_filestore_directories as select n.id::text, n.name from filestore.nodes n`);
    const types = await typesOf(changed);
    expect(fieldsOf(types, 'OddViewRow')).toEqual({ id: 'string | null', access_mode: 'string | null' });
    expect(fieldsOf(types, 'DirectoryRow')).toEqual({ id: 'string | null', name: 'string' });
  });
});
