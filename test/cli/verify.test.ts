import { describe, expect, test } from 'vitest';
import { command, jsonCommand } from '../support/command-line/answers.ts';
import { takePicture } from '../support/databases/picture.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { committedMigrations, migrationNumber } from '../support/packages/committed-files.ts';
import { type LoginRole, rolesForEachTest } from '../support/roles/roles.ts';
import { one } from '../support/rows/nodes.ts';

const database = databaseForEachTest();
const last = committedMigrations().at(-1) ?? '';

const createRole = rolesForEachTest(database);
const grantAccess = ({ name }: LoginRole, level: string) =>
  database().query('select filestore.grant_access($1, $2)', [name, level]);
const verify = (url = database().url) => command(['verify'], url);

/** Changes by hand, and the lines that report them. */
const BY_HAND: Readonly<Record<string, RegExp>> = {
  'alter table filestore.nodes add column owner_hint text':
    /^column filestore\.nodes\.owner_hint is not in the model: text$/,
  'alter table filestore.journal_entries drop column result':
    /^column filestore\.journal_entries\.result is missing: jsonb$/,
  'drop index filestore.nodes_checksum_idx': /^index filestore\.nodes_checksum_idx is missing: USING btree/,
  'create index by_size on filestore.nodes (size_bytes)': /^index filestore\.by_size is not in the model: /,
  "update pg_index set indisvalid = false where indexrelid = 'filestore.nodes_metadata_idx'::regclass":
    /^index filestore\.nodes_metadata_idx is changed: has .* \(invalid\), should have /,
  'alter function filestore.percent_encode(text) volatile':
    /^function filestore\.percent_encode\(text\) is changed: has .*volatile.*, should have .*stable/,
  'alter table filestore.nodes disable trigger nodes_refuse_truncate':
    /^trigger filestore\.nodes\.nodes_refuse_truncate is changed: has .* \(disabled\), should have /,
  'alter table filestore.nodes drop constraint nodes_sound_check':
    /^constraint filestore\.nodes\.nodes_sound_check is missing: CHECK /,
  "alter table filestore.backend_mounts alter column access_mode set default 'ro'":
    /^column filestore\.backend_mounts\.access_mode is changed: has .*'ro'::text, should have .*'rw'::text$/,
  'drop view filestore.view_filestore_directories': /^view filestore\.view_filestore_directories is missing/,
  'grant select on filestore.nodes to public':
    /^privilege SELECT of table filestore\.nodes is not in the model/,
};

describe('a migrated database', () => {
  test('passes, with a note on the weaker comparison on a server before 16', async () => {
    const { exitCode, stdout, stderr } = await verify();
    expect({ exitCode, stdout }).toEqual({
      exitCode: 0,
      stdout: expect.stringMatching(
        /the schema matches its migrations, and each role has the rights of its level\.\n$/,
      ),
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

  test('passes for a reader', async () => {
    const reader = await createRole();
    await grantAccess(reader, 'reader');
    expect(await verify(reader.url)).toMatchObject({ exitCode: 0 });
  });
});

describe('a database that was changed by hand', () => {
  test('is reported object by object, and nothing is changed', async () => {
    const superuser = await database().connectAsSuperuser();
    for (const change of Object.keys(BY_HAND)) await superuser.query(change);
    const before = await takePicture(database());
    const { exitCode, stdout } = await verify();
    expect(exitCode).toBe(4);
    const lines = [...stdout.matchAll(/^DRIFT {2}(.*)$/gm)].map(([, line]) => line ?? '');
    const expected = Object.values(BY_HAND);
    expect(lines).toHaveLength(expected.length);
    for (const words of expected) expect(lines).toContainEqual(expect.stringMatching(words));
    expect(stdout).toContain(
      `: ${expected.length} differences from its migrations and the levels of roles:\n`,
    );
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
        database: database().name,
        state: 'drifted',
        differences: [expect.stringMatching(BY_HAND['drop index filestore.nodes_checksum_idx'] ?? '')],
        notes: expect.any(Array),
      },
    });
  });
});

describe('an incomplete comparison is never reported as no difference:', () => {
  async function expectUnchecked(reason: RegExp): Promise<void> {
    const before = await takePicture(database());
    const { exitCode, document, stderr } = await jsonCommand(['verify'], database().url);
    expect({ exitCode, document }).toEqual({
      exitCode: 1,
      document: {
        ok: false,
        command: 'verify',
        database: database().name,
        state: 'unchecked',
        reason: expect.stringMatching(reason),
      },
    });
    expect(stderr).toMatch(/could not check\. /);
    expect(stderr).not.toMatch(/the schema matches its migrations/);
    expect(await takePicture(database())).toEqual(before);
  }

  test('when the database lacks a migration', async () => {
    await database().query('delete from graphile_migrate.migrations where filename = $1', [
      `${migrationNumber(last)}.sql`,
    ]);
    await expectUnchecked(
      /^It lacks 1 migration \(\d{6}-.*\.sql\)\. Apply them first: npm run db:migrate:filestore\.$/,
    );
  });

  test('when the database has no migrations', async () => {
    await database().query('drop schema graphile_migrate cascade; drop schema filestore cascade');
    await expectUnchecked(/^It lacks \d+ migrations/);
  });
});
