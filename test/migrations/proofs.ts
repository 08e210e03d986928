import { expect } from 'vitest';
import type { TestDatabase } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode } from '../support/rows/nodes.ts';

/** How to prove that an example works. */
export interface Proof {
  /** An example that runs before this one. */
  readonly given?: string;
  /** Inserts further rows, after the example in `given`. */
  readonly populate?: (database: TestDatabase) => Promise<unknown>;
  /** Changes after the first run of the first migration. */
  readonly between?: (database: TestDatabase) => Promise<unknown>;
  /** Expects the resulting rows. */
  readonly after: (database: TestDatabase) => Promise<unknown>;
}

/** A proof for each example of migrations/README.md, by its title, and what tests of examples share. */
export function proofsIn(database: () => TestDatabase) {
  const values = async (query: string) =>
    (await database().query({ text: query, rowMode: 'array' } as never)).map((row) =>
      Object.values(row).join(' '),
    );

  const label = (columns: string, ...row: readonly string[]) =>
    database().query(
      `insert into filestore.node_labels (node_id, label, ${columns})
     select id, $1, ${row
       .slice(1)
       .map((_, index) => `$${index + 2}`)
       .join(', ')}
     from filestore.nodes where name = 'a file'`,
      row,
    );

  const rightsOf = (level: string, object: string) =>
    values(
      `select distinct concat_ws(' ', privilege, column_name) from filestore.access_rights('${level}')
     where object ~ '^filestore\\.${object}(\\(|$)' order by 1`,
    );

  const proofs: Readonly<Record<string, Proof>> = {
    'A new table': {
      between: () => label('created_by', 'red', 'ann'),
      after: async () => {
        expect(await values('select label, created_by from filestore.node_labels')).toEqual(['red ann']);
        await database().query("update filestore.nodes set state = 'deleted' where name = 'a file'");
        await database().query("select filestore.purge_deleted('0 seconds')");
        expect(await values('select label from filestore.node_labels')).toEqual([]);
        expect(await rightsOf('service', 'node_labels')).toEqual([
          'INSERT created_by',
          'INSERT label',
          'INSERT node_id',
          'SELECT',
        ]);
      },
    },
    'A new function': {
      after: async () => {
        expect(
          await values(
            "select filestore.count_children(id) from filestore.nodes where parent_id is null or name = 'a directory'",
          ),
        ).toEqual(['1', '1']);
        expect(await rightsOf('reader', 'count_children')).toEqual(['EXECUTE']);
      },
    },
    'A new column of mounts': {
      populate: () =>
        database().query(
          `insert into filestore.backend_mounts (mount_key, backend_kind, bucket, config)
         values ('known', 's3', 'known', '{"region": "eu-central-1"}'),
                ('wrong', 's3', 'wrong', '{"region": "eu-central-1"}'),
                ('unknown', 's3', 'unknown', '{}')`,
        ),
      between: () =>
        database().query(
          "update filestore.backend_mounts set region = 'us-east-1' where mount_key = 'wrong'",
        ),
      after: async () => {
        expect(
          await values(
            `select mount_key, coalesce(region, 'null'), version from filestore.backend_mounts
           where backend_kind = 's3' order by mount_key`,
          ),
        ).toEqual(['known eu-central-1 1', 'unknown null 1', 'wrong us-east-1 2']);
      },
    },
    'A new column of nodes': {
      populate: () =>
        database().query(
          `update filestore.nodes set metadata = '{"media_type": "text/plain"}' where kind = 'file' and live`,
        ),
      after: async () => {
        const filled = 'select name, media_type, version from filestore.nodes where media_type is not null';
        expect(await values(filled)).toEqual(['a file text/plain 3']);
        expect(await values(filled.replace('nodes', 'view_filestore_active_nodes'))).toHaveLength(1);
        expect(await rightsOf('service', 'nodes')).toEqual(
          expect.arrayContaining(['INSERT media_type', 'UPDATE media_type']),
        );
        await database().query("update filestore.nodes set media_type = 'image/png' where name = 'a file'");
        expect(
          await values(
            `select version, media_type from filestore.view_filestore_node_versions
           where name = 'a file' and media_type is not null order by version`,
          ),
        ).toEqual(['3 text/plain', '4 image/png']);
        await database().query(
          "select filestore.revert_node(id, 3) from filestore.nodes where name = 'a file'",
        );
        expect(await values(filled)).toEqual(['a file text/plain 5']);
      },
    },
    'A rule that old rows may break': {
      populate: () => database().query("update filestore.backend_mounts set contact = 'ann'"),
      after: async () => {
        await expect(
          database().query('update filestore.backend_mounts set contact = null'),
        ).rejects.toMatchObject({
          code: '23514',
          constraint: 'backend_mounts_contact_present_check',
        });
      },
    },
    'A changed function signature': {
      populate: async () => {
        await database().query('create role example_reader');
        await database().query("select filestore.grant_access('example_reader', 'reader')");
      },
      after: async () => {
        const calls = [
          "'md5:0123456789abcdef0123456789abcdef'",
          "'md5:0123456789abcdef0123456789abcdef', (select max(id) from filestore.backend_mounts)",
          "'md5:0123456789abcdef0123456789abcdef', -1",
        ];
        const found: string[] = [];
        for (const call of calls) {
          found.push((await values(`select name from filestore.find_by_checksum(${call})`)).join());
        }
        expect(found).toEqual(['a file', 'a file', '']);
        // This runs at the end of each migration.
        await database().query('select filestore.renew_access()');
        expect(
          await values(
            `select has_function_privilege('example_reader', p.oid, 'execute'), has_function_privilege('public', p.oid, 'execute')
           from pg_proc p where p.proname = 'find_by_checksum'`,
          ),
        ).toEqual(['true false']);
        await database().query("select filestore.revoke_access('example_reader')");
        await database().query('drop role example_reader');
      },
    },
    'A changed view with dependants': {
      populate: () =>
        database().query("update filestore.nodes set size_bytes = 1 << 30 where name = 'a file'"),
      after: async () => {
        expect(await values('select path from filestore.view_filestore_large_files')).toEqual([
          'a directory/a file',
        ]);
        expect(
          await values(
            "select mount_access_mode from filestore.view_filestore_active_nodes where name = 'a file'",
          ),
        ).toEqual(['rw']);
      },
    },
    'An index on a table in use': {
      after: async () =>
        expect(
          await values(
            "select indisvalid from pg_index where indexrelid = 'filestore.journal_entries_principal_idx'::regclass",
          ),
        ).toEqual(['true']),
    },
    'Another value of an enumeration': {
      between: () => database().query("update filestore.backend_mounts set state = 'retired'"),
      after: async () => {
        expect(await values('select state from filestore.backend_mounts')).toEqual(['retired']);
        await expect(
          database().query("update filestore.backend_mounts set state = 'lost'"),
        ).rejects.toMatchObject({
          code: '23514',
          constraint: 'backend_mounts_state_check',
        });
      },
    },
    'A rename across two releases': {
      given: 'A new table',
      populate: async () => {
        await label('created_by', 'old', 'ann');
        await label('created_by', 'changed by its old name', 'bob');
        await label('created_by', 'changed by its new name', 'cid');
      },
      between: async () => {
        await label('created_by', 'born with the old name', 'dan');
        await label('principal', 'born with the new name', 'eva');
        await database().query(
          "update filestore.node_labels set created_by = 'BOB' where created_by = 'bob'",
        );
        await database().query("update filestore.node_labels set principal = 'CID' where created_by = 'cid'");
        expect(
          await values('select label from filestore.node_labels where principal is distinct from created_by'),
        ).toEqual([]);
      },
      after: async () => {
        expect(await values('select label, principal from filestore.node_labels order by label')).toEqual([
          'born with the new name eva',
          'born with the old name dan',
          'changed by its new name CID',
          'changed by its old name BOB',
          'old ann',
        ]);
        expect((await database().query('select * from filestore.node_labels limit 1'))[0]).not.toHaveProperty(
          'created_by',
        );
      },
    },
  };

  async function populate(): Promise<void> {
    const mount = await createMount(database());
    const directory = await createDirectory(database(), mount, mount.rootId, 'a directory');
    const file = await createNode(database(), mount, directory, 'a file');
    await database().query(
      "update filestore.nodes set checksum = 'md5:0123456789abcdef0123456789abcdef', size_bytes = 10 where id = $1",
      [file],
    );
    const gone = await createNode(database(), mount, mount.rootId, 'a tombstone');
    await database().query("update filestore.nodes set state = 'deleted' where id = $1", [gone]);
    await database().query("select filestore.begin_command('scan', principal => 'ann')");
  }

  const history = () =>
    database().query(
      'select id, version, name from filestore.view_filestore_node_versions order by id, version',
    );

  return { proofs, values, label, populate, history };
}
