import { afterEach, beforeEach, expect, test } from 'vitest';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { type Proxy as Cable, startProxy } from '../../harness/proxy.ts';
import { verifySchema } from '../../src/index.ts';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { startRun } from '../support/processes/run-copy.ts';

const database = databaseForEachTest();
let copy: PackageCopy;
let proxy: Cable;

beforeEach(async () => {
  copy = copyPackage();
  proxy = await startProxy(database().url);
});
afterEach(async () => {
  await proxy.stop();
  copy.remove();
});

test('a later version that migrates between the two looks of verify is no drift', async () => {
  const added = copy.addMigration('sizes', 'create index nodes_size_idx on filestore.nodes (size_bytes);');
  const comparing = proxy.holdAt('pg_get_constraintdef');
  const check = verifySchema({ env: { DATABASE_URL: proxy.url } });
  const release = await comparing;
  await startRun(copy, database().url).ended;
  release();
  expect(await check).toEqual({
    state: 'unchecked',
    reason: expect.stringMatching(
      new RegExp(`later version .*\\(${added.slice(0, 6)}\\.sql\\)\\. Compare it with that version`),
    ),
  });
});

test('a difference while a later version migrates is no drift, and the run is named', async () => {
  copy.addMigration(
    'sizes',
    '--! no-transaction\ncreate index concurrently if not exists nodes_size_idx on filestore.nodes (size_bytes);',
  );
  const recording = proxy.holdAt('insert into graphile_migrate.migrations');
  const run = startRun(copy, proxy.url);
  const release = await recording;
  expect(await verifySchema({ env: { DATABASE_URL: database().url } })).toEqual({
    state: 'unchecked',
    reason: expect.stringMatching(/migrations are applied by server process \d+, .*Run .*verify.* again/),
  });
  release();
  await run.ended;
});
