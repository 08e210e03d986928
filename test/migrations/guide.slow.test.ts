import { describe, expect, test } from 'vitest';
import { comments } from '../../dev/check/gates/comments.ts';
import { concurrently } from '../../dev/check/gates/concurrently.ts';
import { dataChecks } from '../../dev/check/gates/data-checks.ts';
import { foreignKeys } from '../../dev/check/gates/foreign-keys.ts';
import { historyColumns } from '../../dev/check/gates/history-columns.ts';
import { lint } from '../../dev/check/gates/lint.ts';
import { placeholders } from '../../dev/check/gates/placeholders.ts';
import { sessionSettings } from '../../dev/check/gates/session-settings.ts';
import { sqlFiles } from '../../dev/check/gates/sql-files.ts';
import { describeSchema } from '../../dev/documents/describe-schema.ts';
import { readSources } from '../../dev/sources/sources.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { linesOf } from '../support/packages/spoiled-package.ts';
import { one } from '../support/rows/nodes.ts';
import { type Run, readExamples, runsOf } from './guide.ts';
import { proofsIn } from './proofs.ts';
import { execute, folderForEachTest } from './run-examples.ts';

const examples = readExamples();
const database = databaseForEachTest();
const copy = folderForEachTest();
const { proofs, populate, history, label } = proofsIn(database);

const find = (title: string) =>
  examples.find((example) => example.title === title) ?? expect.fail(`no example "${title}"`);

/** Runs every step twice, the second time without effect, and returns the steps. */
async function run(title: string, between: (() => Promise<unknown>) | undefined): Promise<readonly Run[]> {
  const { url } = database();
  const client = await database().connect();
  const state = async () => ({ model: await readCatalog(client), comments: await describeSchema(client) });
  const ran: Run[] = [];
  for (const migration of runsOf(find(title), copy())) {
    await execute(client, url, copy(), migration);
    const once = await state();
    if (ran.length === 0) await between?.();
    await execute(client, url, copy(), migration);
    expect(await state(), migration.sql).toEqual(once);
    ran.push(migration);
  }
  return ran;
}

test('every example of migrations/README.md has a proof', () => {
  expect(examples.map(({ title }) => title).sort()).toEqual(Object.keys(proofs).sort());
  for (const { title, steps } of examples) expect(steps.length, title).toBeGreaterThan(0);
});

describe.each(Object.entries(proofs))('%s', (title, { given, populate: begin, between, after }) => {
  test('leaves correct rows in a populated database, however often it runs', async () => {
    await populate();
    if (given !== undefined) await run(given, undefined);
    await begin?.(database());
    const before = await history();
    const migrations = await run(title, between && (() => between(database())));
    const client = await database().connect();
    const done = await readCatalog(client);
    for (const migration of migrations) await execute(client, database().url, copy(), migration);
    expect(await readCatalog(client)).toEqual(done);
    expect(await history()).toEqual(before);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    await after(database());
  });

  test('runs on an empty database', async () => {
    if (given !== undefined) await run(given, undefined);
    const migrations = await run(title, undefined);
    expect(migrations.length).toBeGreaterThan(0);
    // Includes the last migration, since the comment of a concurrent index is in it.
    const subject = { sources: await readSources(copy(), true), client: await database().connect() };
    for (const gate of [comments, foreignKeys, historyColumns]) {
      expect(await linesOf(gate.evaluate(subject)), gate.name).toEqual([]);
    }
    expect(await one(database(), 'select count(*)::integer as nodes from filestore.nodes')).toEqual({
      nodes: 0,
    });
  });
});

test.each(examples.map(({ title }) => title))('"%s" passes the checks', async (title) => {
  for (const { by } of runsOf(find(title), copy())) {
    if (by === 'owner') continue;
    const sources = await readSources(copy(), true);
    for (const gate of [sqlFiles, lint, concurrently, dataChecks, sessionSettings, placeholders]) {
      expect(await linesOf(gate.evaluate(sources)), gate.name).toEqual([]);
    }
  }
});

test('a view cannot be dropped while another view uses it', async () => {
  await run('A changed view with dependants', undefined);
  await expect(database().query('drop view filestore.view_filestore_active_nodes')).rejects.toMatchObject({
    code: '2BP01',
  });
});

test('the check of the example refuses rows that break its rule', async () => {
  await populate();
  await database().query('update filestore.backend_mounts set contact = null');
  await expect(run('A rule that old rows may break', undefined)).rejects.toThrow(
    'Some mounts have no contact. Set backend_mounts.contact first.',
  );
});

test('the second release of a rename refuses to lose a value', async () => {
  await populate();
  await run('A new table', undefined);
  const client = await database().connect();
  const [first, second] = [...runsOf(find('A rename across two releases'), copy())];
  if (first === undefined || second === undefined) return expect.fail('the rename has two migrations');
  await execute(client, database().url, copy(), first);
  await label('created_by', 'kept', 'ann');
  await database().query('alter table filestore.node_labels disable trigger user');
  await database().query("update filestore.node_labels set principal = 'eva'");
  await expect(execute(client, database().url, copy(), second)).rejects.toThrow(
    'node_labels.created_by has values that node_labels.principal lacks',
  );
});
