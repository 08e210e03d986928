import { describe, expect, test } from 'vitest';
import { command, jsonCommand } from '../support/answers.ts';
import { databaseForEachTest } from '../support/database.ts';
import { committedMigrations, migrationNumber } from '../support/migrations.ts';
import { takePicture } from '../support/picture.ts';
import { one } from '../support/tree.ts';

const database = databaseForEachTest();
const last = committedMigrations().at(-1) ?? '';

const verify = (url = database().url) => command(['verify'], url);

/** What somebody did by hand at night, and how it is told. */
const BY_HAND: Readonly<Record<string, RegExp>> = {
  'alter table filestore.nodes add column owner_hint text':
    /^column filestore\.nodes\.owner_hint is not in the model: text$/,
  'alter table filestore.journal_entries drop column principal':
    /^column filestore\.journal_entries\.principal is missing: text$/,
  'drop index filestore.nodes_checksum_idx': /^index filestore\.nodes_checksum_idx is missing: USING btree/,
  'create index by_size on filestore.nodes (size_bytes)': /^index filestore\.by_size is not in the model: /,
  "update pg_index set indisvalid = false where indexrelid = 'filestore.nodes_metadata_idx'::regclass":
    /^index filestore\.nodes_metadata_idx is changed: has .* \(invalid\), should have /,
  'alter function filestore.percent_encode(text) volatile':
    /^function filestore\.percent_encode\(text\) is changed: has .*volatile.*, should have .*stable/,
  'alter table filestore.nodes disable trigger nodes_refuse_truncate':
    /^trigger filestore\.nodes\.nodes_refuse_truncate is changed: has .* \(disabled\), should have /,
  'alter table filestore.nodes drop constraint nodes_path_length_check':
    /^constraint filestore\.nodes\.nodes_path_length_check is missing: CHECK /,
  "alter table filestore.backend_mounts alter column access_mode set default 'ro'":
    /^column filestore\.backend_mounts\.access_mode is changed: has .*'ro'::text, should have .*'rw'::text$/,
  'drop view filestore.view_filestore_directories': /^view filestore\.view_filestore_directories is missing/,
  'grant select on filestore.nodes to public':
    /^privilege SELECT of table filestore\.nodes is not in the model/,
};

describe('a database as its migrations made it', () => {
  test('passes, on a server before 16 with a note on what was compared less strictly', async () => {
    const { exitCode, stdout, stderr } = await verify();
    expect({ exitCode, stdout }).toEqual({
      exitCode: 0,
      stdout: expect.stringMatching(/the schema is the one that its migrations make\.\n$/),
    });
    const { version } = await one(
      database(),
      "select current_setting('server_version_num')::integer as version",
    );
    for (const line of stderr.split('\n').filter((one) => one !== '')) {
      expect(version).toBeLessThan(160_000);
      expect(line).toMatch(/^Note: view filestore\.\w+ was compared without the qualifiers of its columns/);
    }
  });

  test('passes for a role that may read nothing but the history', async () => {
    const reader = `${database().name}_reader`;
    await database().query(`create role ${reader} login password 'reader'`);
    try {
      await database().query(`grant usage on schema graphile_migrate to ${reader}`);
      await database().query(`grant select on graphile_migrate.migrations to ${reader}`);
      const url = new URL(database().url);
      url.username = reader;
      url.password = 'reader';
      expect(await verify(url.href)).toMatchObject({ exitCode: 0 });
    } finally {
      await database().query(`drop owned by ${reader}`);
      await database().query(`drop role ${reader}`);
    }
  });
});

describe('a database that was changed by hand', () => {
  test('is told object by object, and left as it is', async () => {
    for (const change of Object.keys(BY_HAND)) await database().query(change);
    const before = await takePicture(database());
    const { exitCode, stdout } = await verify();
    expect(exitCode).toBe(4);
    const told = [...stdout.matchAll(/^DRIFT {2}(.*)$/gm)].map(([, line]) => line ?? '');
    const expected = Object.values(BY_HAND);
    expect(told).toHaveLength(expected.length);
    for (const words of expected) expect(told).toContainEqual(expect.stringMatching(words));
    expect(stdout).toContain(`: ${expected.length} differences to what its migrations make:\n`);
    expect(await takePicture(database())).toEqual(before);
  });

  test('has the same lines in a document', async () => {
    await database().query('drop index filestore.nodes_checksum_idx');
    const { exitCode, document } = await jsonCommand(['verify'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 4,
      document: {
        ok: false,
        command: 'verify',
        state: 'drifted',
        differences: [expect.stringMatching(BY_HAND['drop index filestore.nodes_checksum_idx'] ?? '')],
        notes: expect.any(Array),
      },
    });
  });
});

describe('what could not be compared is never said to be the same:', () => {
  async function expectUnchecked(reason: RegExp): Promise<void> {
    const before = await takePicture(database());
    const { exitCode, document, stderr } = await jsonCommand(['verify'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 1,
      document: { ok: false, command: 'verify', state: 'unchecked', reason: expect.stringMatching(reason) },
    });
    expect(stderr).toMatch(/nothing was compared/);
    expect(stderr).not.toMatch(/the one that its migrations make/);
    expect(await takePicture(database())).toEqual(before);
  }

  test('a database that lacks a migration', async () => {
    await database().query('delete from graphile_migrate.migrations where filename = $1', [
      `${migrationNumber(last)}.sql`,
    ]);
    await expectUnchecked(
      /^It lacks 1 migration \(\d{6}-.*\.sql\)\. Apply them first: npm run db:migrate:filestore\.$/,
    );
  });

  test('a database that has none', async () => {
    await database().query('drop schema graphile_migrate cascade; drop schema filestore cascade');
    await expectUnchecked(/^It lacks \d+ migrations/);
  });

  test('a table that somebody holds locked', async () => {
    const client = await database().connect();
    await client.query('begin; lock table filestore.nodes in access exclusive mode');
    const url = new URL(database().url);
    url.searchParams.set('options', '-c lock_timeout=200');
    const { exitCode, document } = await jsonCommand(['verify'], url.href);
    expect({ exitCode, document }).toEqual({
      exitCode: 1,
      document: {
        ok: false,
        command: 'verify',
        state: 'unchecked',
        reason: expect.stringMatching(
          /^the server did not say what it holds \(.*lock timeout\).*db:verify:filestore/,
        ),
      },
    });
    // Nor does it wait for ever where the session has no limit of its own.
    expect(await verify()).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/lock timeout/) });
    await client.query('rollback');
    expect(await verify()).toMatchObject({ exitCode: 0 });
  });
});
