import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, inject, test } from 'vitest';
import { connectionTo } from '../../harness/connection.ts';
import { runMigrations, verifySchema } from '../../src/index.ts';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForEachTest, databaseForFile } from '../support/databases/test-database.ts';
import { statementsOf } from '../support/packages/examples.ts';
import { createChain, createMount, createNode, deleteNode, one } from '../support/rows/nodes.ts';
import { findDumpTools } from '../support/servers/dump-tools.ts';

const run = promisify(execFile);

const folder = await findDumpTools(inject('adminUrl'));

/** Of the source: its sequences would not fit into those of a target without it. */
const DATABASE_NUMBER = 7;

describe.runIf(folder !== undefined)('a dump', () => {
  const source = databaseForFile();
  const target = databaseForEachTest('empty');
  let scratch: string;
  let ids: { readonly directory: string; readonly file: string };

  const tool = (name: string, ...values: readonly string[]) => run(join(folder ?? '', name), values);

  beforeAll(() => source().query('select filestore.set_database_number($1)', [DATABASE_NUMBER]));

  beforeEach(async () => {
    scratch = mkdtempSync(join(tmpdir(), 'fs-dump-'));
    const mount = await createMount(source());
    const [directory = '', below = ''] = await createChain(source(), mount, 'a', 'b');
    const file = await createNode(source(), mount, below, 'f');
    ids = { directory, file };
    await source().query('update filestore.nodes set size_bytes = 5, metadata = \'{"a": 1}\' where id = $1', [
      file,
    ]);
    await source().query("select filestore.move_node($1, new_name => 'z')", [directory]);
    await deleteNode(source(), await createNode(source(), mount, below, 'gone'));
    await source().query('select filestore.record_sightings(array[$1::bigint])', [file]);
    await source().query(
      "select filestore.finish_command((b.entry).id, 'succeeded', '{}') from filestore.begin_command('x') b",
    );
  });
  afterEach(() => rmSync(scratch, { recursive: true, force: true }));

  const contentOf = async (database: typeof source) => {
    const content: Record<string, unknown> = {};
    for (const table of [
      'backend_mounts',
      'nodes',
      'snapshots',
      'journal_entries',
      'rollups',
      'node_sightings',
    ]) {
      content[table] = await database().query(
        `select to_jsonb(t) as row from filestore.${table} t order by 1`,
      );
    }
    return content;
  };

  async function restore(): Promise<void> {
    const file = join(scratch, 'dump');
    await tool('pg_dump', '--format=custom', `--file=${file}`, source().url);
    await tool('pg_restore', '--no-owner', '--exit-on-error', `--dbname=${target().url}`, file);
  }

  test('is restored with its content, and its schema matches the migrations', async () => {
    await restore();
    expect(await contentOf(target)).toEqual(await contentOf(source));
    expect(await target().query('select * from filestore.check_integrity()')).toEqual([]);
    expect(await verifySchema({ connection: connectionTo(target().url) })).toMatchObject({ state: 'same' });
  });

  test('is restored with validated checks over whole rows, which still refuse bad rows', async () => {
    await restore();
    expect(
      await target().query(
        `select conname as name, convalidated as validated from pg_constraint
         where conname in ('nodes_sound_check', 'journal_entries_sound_check') order by 1`,
      ),
    ).toEqual([
      { name: 'journal_entries_sound_check', validated: true },
      { name: 'nodes_sound_check', validated: true },
    ]);
    await expect(
      target().query('update filestore.nodes set size_bytes = -1 where id = $1', [ids.file]),
    ).rejects.toMatchObject({ code: '23514', constraint: 'nodes_size_check' });
    const client = await target().connectAsSuperuser();
    await client.query('set session_replication_role = replica');
    await expect(
      client.query("update filestore.nodes set path = 'x' where id = $1", [ids.file]),
    ).rejects.toMatchObject({ code: '23514', constraint: 'nodes_derived_path_check' });
    await expect(
      client.query("update filestore.journal_entries set status = 'running'"),
    ).rejects.toMatchObject({ code: '23514' });
  });

  test('is restored as a working catalogue: triggers, history and ids continue', async () => {
    await restore();
    await target().query("select filestore.move_node($1, new_name => 'y')", [ids.directory]);
    expect(
      await one(target(), 'select path, version from filestore.nodes where id = $1', [ids.file]),
    ).toEqual({
      path: 'y/b/f',
      version: 4,
    });
    await target().query("select filestore.create_node($1, 'new')", [ids.directory]);
    expect(await target().query('select * from filestore.check_sequences()')).toEqual([]);
    expect(await target().query('select * from filestore.check_integrity()')).toEqual([]);
  });

  test('of the rows alone goes into a migrated database, as docs/upkeep.md says', async () => {
    await runMigrations({ connection: connectionTo(target().url) });
    await target().query('select filestore.set_database_number($1)', [DATABASE_NUMBER]);
    await run('sh', ['-euc', documented('sh')], {
      cwd: scratch,
      env: {
        ...process.env,
        PATH: `${folder}${delimiter}${process.env.PATH}`,
        SOURCE_URL: source().url,
        TARGET_URL: target().superuserUrl,
      },
    });
    expect(await contentOf(target)).toEqual(await contentOf(source));
    for (const { statement } of statementsOf(documented('sql'))) await target().query(statement);
    expect(await target().query('select * from filestore.check_sequences()')).toEqual([]);
    expect(await target().query('select * from filestore.check_integrity()')).toEqual([]);
    expect(
      await target().query(
        "select count(*)::integer as enabled from pg_trigger where tgname like '%guard_move' and tgenabled <> 'D'",
      ),
    ).toEqual([{ enabled: 0 }]);
  });
});

/** The first block of one language in the section on dumps. */
function documented(language: 'sh' | 'sql'): string {
  const [, section = ''] =
    /^## Restoring a dump\n([\s\S]*?)^## /m.exec(
      readFileSync(join(PACKAGE_ROOT, 'docs', 'upkeep.md'), 'utf8'),
    ) ?? [];
  const [, block = ''] = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(section) ?? [];
  expect(block).not.toBe('');
  return block;
}
