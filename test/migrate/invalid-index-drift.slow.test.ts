import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { MODEL_FILE } from '../../src/catalog/committed-model.ts';
import { readCatalog } from '../../src/catalog/read.ts';
import { renderModel } from '../../src/catalog/render.ts';
import { readCommittedMigrations } from '../../src/graphile/committed-migrations.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { findIndex, startReport } from '../support/databases/concurrent-index.ts';
import { createDatabase, databaseForEachTest } from '../support/databases/test-database.ts';
import { startRun } from '../support/processes/run-copy.ts';

const database = databaseForEachTest();
const INDEX = 'filestore.nodes_kind_idx';
let copy: PackageCopy;

beforeEach(() => {
  copy = copyPackage();
});
afterEach(() => copy.remove());

const cli = (...args: readonly string[]) =>
  runCli(args, { folder: copy.folder, env: { DATABASE_URL: database().url } });

/** Regenerates the copy's model from its migrations. */
async function writeModel(): Promise<void> {
  const other = await createDatabase();
  try {
    await startRun(copy, other.url).ended;
    const last = (await readCommittedMigrations(join(copy.folder, 'migrations'))).at(-1);
    if (last === undefined) throw new Error('no migration');
    writeFileSync(join(copy.folder, MODEL_FILE), renderModel(await readCatalog(await other.connect()), last));
  } finally {
    await other.drop();
  }
}

/** Leaves an invalid index, as a cancelled build does. */
async function leaveInvalid(): Promise<void> {
  const report = await startReport(database(), { table: 'filestore.nodes' });
  const builder = await database().connect();
  await builder.query("set lock_timeout = '50ms'");
  await builder
    .query('create index concurrently nodes_kind_idx on filestore.nodes (kind)')
    .catch(() => undefined);
  await report.query('commit');
  expect(await findIndex(database(), INDEX)).toMatchObject({ valid: false });
}

test('an invalid index that a migration skipped is drift, and verify reports it until it is built', async () => {
  const filename = copy.addMigration(
    'kind',
    'create index if not exists nodes_kind_idx on filestore.nodes (kind);',
  );
  await writeModel();
  expect(readFileSync(join(copy.folder, MODEL_FILE), 'utf8')).toContain('index nodes_kind_idx');
  await leaveInvalid();

  const drift =
    /index filestore\.nodes_kind_idx is changed: has .* \(invalid\).*, should have USING btree \(kind\)/;
  const migrated = await cli('migrate', '--json');
  expect(migrated.exitCode).toBe(4);
  expect(migrated.stderr).toMatch(drift);
  expect(JSON.parse(migrated.stdout)).toMatchObject({
    ok: false,
    error: {
      code: 'SCHEMA_DRIFTED',
      applied: [filename],
      differences: [expect.stringMatching(drift)],
    },
  });
  expect(await cli('verify')).toMatchObject({ exitCode: 4, stdout: expect.stringMatching(drift) });

  await database().query(`reindex index ${INDEX}`);
  expect(await cli('verify')).toMatchObject({ exitCode: 0 });
});
