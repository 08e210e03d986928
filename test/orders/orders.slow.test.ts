import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { sampleOf } from '../support/points.ts';
import { rolesForEachTest } from '../support/roles/roles.ts';
import { caseOf, casesByKind, IMPORT } from './cases.ts';
import { type Case, newTally, type Tally } from './judge.ts';
import { renderTally, runCases, startWorker } from './orders.ts';

const database = databaseForEachTest();
const createRole = rolesForEachTest(database);

const seed = Number(process.env.ORDERS_SEED ?? 1);
console.log(`Seed of the orders: ${seed}`);

async function run(cases: readonly Case[], change = ''): Promise<Tally> {
  const roles = { service: (await createRole()).name, operator: (await createRole()).name };
  const superuser = await database().connectAsSuperuser();
  await superuser.query(change);
  const worker = await startWorker(database().superuserUrl, roles);
  const tally = newTally();
  try {
    await runCases([worker], cases, tally);
  } finally {
    await worker.close();
  }
  return tally;
}

test('every order of the steps of sessions ends as a serial one, or in a documented refusal', {
  timeout: 180_000,
}, async () => {
  const cases = Object.values(casesByKind())
    .flatMap((some) => sampleOf(some, 0.006, seed))
    .filter((one) => !one.isMoving);
  const tally = await run(cases);
  const summary = renderTally(cases, tally);
  console.log(summary.split('\n')[0]);
  expect(tally.differences, summary).toEqual([]);
  expect(tally.waits).toBeGreaterThan(0);
  expect(tally.refusals.size).toBeGreaterThan(0);
});

/** The tree lock left out. */
const WITHOUT_LOCK =
  "create or replace function filestore.lock_tree(mount_id bigint, exclusive boolean) returns void language sql as ''";

/** The lock left out by which an import waits for a prune. */
const WITHOUT_WAIT = readFileSync(
  new URL('../../migrations/fixtures/functions/take_versions.sql', import.meta.url),
  'utf8',
).replace(/perform\s+from filestore\.backend_mounts m[^;]*for share;/, '');

test('a gap in the history is found where an import does not wait for a prune', async () => {
  const tally = await run([caseOf([IMPORT, 'prune history'])], WITHOUT_WAIT);
  expect(tally.differences.map(({ what }) => what).join('\n')).toContain('missing version');
});

test.each([
  ['a wrong total', 'fold', 'move a/s to e'],
  ['a sighting of no node', 'sync z', 'begin to erase z; erase some of z; erase some of z'],
])('%s is found where the tree lock is left out', async (_, ...names) => {
  const tally = await run([caseOf(names)], WITHOUT_LOCK);
  expect(tally.differences.map(({ what }) => what).join('\n')).toContain('broken');
});
