import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { describeSchema } from '../../src/catalog/describe.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { comments } from '../../src/dev/check/gates/comments.ts';
import { concurrently } from '../../src/dev/check/gates/concurrently.ts';
import { foreignKeys } from '../../src/dev/check/gates/foreign-keys.ts';
import { historyColumns } from '../../src/dev/check/gates/history-columns.ts';
import { lint } from '../../src/dev/check/gates/lint.ts';
import { placeholders } from '../../src/dev/check/gates/placeholders.ts';
import { sessionSettings } from '../../src/dev/check/gates/session-settings.ts';
import { style } from '../../src/dev/check/gates/style.ts';
import { readSources } from '../../src/dev/check/sources.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { linesOf } from '../support/check.ts';
import { databaseForEachTest, type TestDatabase } from '../support/database.ts';
import { createDirectory, createMount, createNode, one } from '../support/tree.ts';
import { until } from '../support/until.ts';
import { execute, type Run, readExamples, runsOf } from './guide.ts';

interface Proof {
  /** An example whose outcome this one begins with. */
  readonly given?: string;
  /** Rows to begin with, beside those that all have; after what is given. */
  readonly populate?: (database: TestDatabase) => Promise<unknown>;
  /** What people do after the first migration ran for the first time. */
  readonly meanwhile?: (database: TestDatabase) => Promise<unknown>;
  /** What is then true of the rows. */
  readonly after: (database: TestDatabase) => Promise<unknown>;
}

const examples = readExamples();
const database = databaseForEachTest();
/** Holds a copy of migrations/ that an example may change. */
let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'filestore-examples-'));
  for (const entry of ['migrations', '.gmrc', '.squawk.toml']) {
    cpSync(join(PACKAGE_ROOT, entry), join(folder, entry), { recursive: true });
  }
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

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
    meanwhile: () => label('created_by', 'red', 'ann'),
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
    meanwhile: () =>
      database().query("update filestore.backend_mounts set region = 'us-east-1' where mount_key = 'wrong'"),
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
  'A changed function signature': {
    populate: async () => {
      await database().query('create role example_reader');
      await database().query("select filestore.grant_access('example_reader', 'reader')");
    },
    after: async () => {
      const calls = [
        "'sha256:00'",
        "'sha256:00', (select max(id) from filestore.backend_mounts)",
        "'sha256:00', -1",
      ];
      const found: string[] = [];
      for (const call of calls) {
        found.push((await values(`select name from filestore.find_by_checksum(${call})`)).join());
      }
      expect(found).toEqual(['a file', 'a file', '']);
      // As at the end of each migration.
      await database().query('select filestore.renew_access()');
      expect(
        await values(
          `select has_function_privilege('example_reader', p.oid, 'execute'), has_function_privilege('public', p.oid, 'execute')
           from pg_proc p where p.proname = 'find_by_checksum'`,
        ),
      ).toEqual(['true false']);
      await database().query('drop owned by example_reader');
      await database().query('drop role example_reader');
    },
  },
  'A changed view with dependants': {
    populate: () => database().query("update filestore.nodes set size_bytes = 1 << 30 where name = 'a file'"),
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
    meanwhile: () => database().query("update filestore.backend_mounts set state = 'retired'"),
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
    meanwhile: async () => {
      await label('created_by', 'born with the old name', 'dan');
      await label('principal', 'born with the new name', 'eva');
      await database().query("update filestore.node_labels set created_by = 'BOB' where created_by = 'bob'");
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

const find = (title: string) =>
  examples.find((example) => example.title === title) ?? expect.fail(`no example "${title}"`);

/** Every step twice, the second time without effect; returns them. */
async function run(title: string, meanwhile: (() => Promise<unknown>) | undefined): Promise<readonly Run[]> {
  const { url } = database();
  const client = await database().connect();
  const state = async () => ({ model: await readCatalog(client), comments: await describeSchema(client) });
  const ran: Run[] = [];
  for (const migration of runsOf(find(title), folder)) {
    await execute(client, url, folder, migration);
    const once = await state();
    if (ran.length === 0) await meanwhile?.();
    await execute(client, url, folder, migration);
    expect(await state(), migration.sql).toEqual(once);
    ran.push(migration);
  }
  return ran;
}

async function populate(): Promise<void> {
  const mount = await createMount(database());
  const directory = await createDirectory(database(), mount, mount.rootId, 'a directory');
  const file = await createNode(database(), mount, directory, 'a file');
  await database().query("update filestore.nodes set checksum = 'sha256:00', size_bytes = 10 where id = $1", [
    file,
  ]);
  const gone = await createNode(database(), mount, mount.rootId, 'a tombstone');
  await database().query("update filestore.nodes set state = 'deleted' where id = $1", [gone]);
  await database().query("select filestore.begin_command('scan', principal => 'ann')");
}

const history = () =>
  database().query(
    'select id, version, name from filestore.view_filestore_node_versions order by id, version',
  );

test('every example of migrations/README.md is run here', () => {
  expect(examples.map(({ title }) => title).sort()).toEqual(Object.keys(proofs).sort());
  for (const { title, steps } of examples) expect(steps.length, title).toBeGreaterThan(0);
});

describe.each(Object.entries(proofs))('%s', (title, { given, populate: begin, meanwhile, after }) => {
  test('leaves the rows of a populated database right, however often it runs', async () => {
    await populate();
    if (given !== undefined) await run(given, undefined);
    await begin?.(database());
    const before = await history();
    const migrations = await run(title, meanwhile && (() => meanwhile(database())));
    const client = await database().connect();
    const done = await readCatalog(client);
    for (const migration of migrations) await execute(client, database().url, folder, migration);
    expect(await readCatalog(client)).toEqual(done);
    expect(await history()).toEqual(before);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    await after(database());
  });

  test('runs on an empty database', async () => {
    if (given !== undefined) await run(given, undefined);
    const migrations = await run(title, undefined);
    expect(migrations.length).toBeGreaterThan(0);
    // With the last migration, which alone knows the purpose of an index that it builds.
    const subject = { sources: await readSources(folder, true), client: await database().connect() };
    for (const gate of [comments, foreignKeys, historyColumns]) {
      expect(await linesOf(gate.look(subject)), gate.name).toEqual([]);
    }
    expect(await one(database(), 'select count(*)::integer as nodes from filestore.nodes')).toEqual({
      nodes: 0,
    });
  });
});

test.each(examples.map(({ title }) => title))('"%s" is written as the checks want it', async (title) => {
  for (const { by } of runsOf(find(title), folder)) {
    if (by === 'owner') continue;
    const sources = await readSources(folder, true);
    for (const gate of [style, lint, concurrently, sessionSettings, placeholders]) {
      expect(await linesOf(gate.look(sources)), gate.name).toEqual([]);
    }
  }
});

test('a view that another one uses cannot be dropped without it', async () => {
  await run('A changed view with dependants', undefined);
  await expect(database().query('drop view filestore.view_filestore_active_nodes')).rejects.toMatchObject({
    code: '2BP01',
  });
});

test('the second release of the rename refuses to lose a value', async () => {
  await populate();
  await run('A new table', undefined);
  const client = await database().connect();
  const [first, second] = [...runsOf(find('A rename across two releases'), folder)];
  if (first === undefined || second === undefined) return expect.fail('the rename has two migrations');
  await execute(client, database().url, folder, first);
  await label('created_by', 'kept', 'ann');
  await database().query('alter table filestore.node_labels disable trigger user');
  await database().query("update filestore.node_labels set principal = 'eva'");
  await expect(execute(client, database().url, folder, second)).rejects.toThrow(
    'node_labels.created_by holds values that node_labels.principal does not',
  );
});

test('a backfill that is killed halfway goes on where it ended, and counts no version', async () => {
  await populate();
  await database().query(
    `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, metadata)
     select backend_mount_id, id, number::text, 'file', '{"media_type": "text/plain"}'
     from filestore.nodes, generate_series(1, 2500) number
     where name = 'a directory'`,
  );
  const before = await history();
  const client = await database().connect();
  const owner = await database().connect();
  for (const step of runsOf(find('A new column of nodes'), folder)) {
    if (step.by === 'migration') {
      await execute(client, database().url, folder, step);
      continue;
    }
    // The last node is locked, so the backfill waits in its last batch.
    const { rows } = await owner.query<{ pid: number }>('select pg_backend_pid() as pid');
    await client.query('begin');
    await client.query(
      'select from filestore.nodes where id = (select max(id) from filestore.nodes) for update',
    );
    const killed = expect(execute(owner, database().url, folder, step)).rejects.toMatchObject({
      code: '57P01',
    });
    const isWaiting = 'select from pg_locks where pid = $1 and not granted';
    await until(async () => (await database().query(isWaiting, [rows[0]?.pid])).length > 0);
    await database().query('select pg_terminate_backend($1)', [rows[0]?.pid]);
    await killed;
    await client.query('rollback');
    const [job] = await database().query<{ filled: string }>('select * from filestore.backfills');
    expect(Number(job?.filled)).toBeGreaterThan(0);
    expect(Number(job?.filled)).toBeLessThan(2500);
    expect(job).toMatchObject({ finished_at: null });
    await execute(client, database().url, folder, step);
  }
  expect(await values('select filled, finished_at is not null from filestore.backfills')).toEqual([
    '2500 true',
  ]);
  expect(await values('select count(*) from filestore.nodes where media_type is not null')).toEqual(['2500']);
  expect(await history()).toEqual(before);
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
});
