import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { caseOf } from '../orders/cases.ts';
import { newTally } from '../orders/judge.ts';
import { renderTally, runCases, startWorker, type Worker } from '../orders/orders.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { rolesForFile } from '../support/roles/roles.ts';

const database = databaseForFile();
const createRole = rolesForFile(database);

let worker: Worker;

beforeAll(async () => {
  const roles = { service: (await createRole()).name, operator: (await createRole()).name };
  worker = await startWorker(database().superuserUrl, roles);
});
afterAll(() => worker?.close());

/** Sessions of `test/orders`, by what they prove together. Those with `~` roll back. */
const PAIRS: Readonly<Record<string, readonly (readonly [string, string])[]>> = {
  'a node is created in its directory, wherever that is then, or not at all': [
    ['create a/new', 'create a/new'],
    ['create a/s/new', 'rename a to new'],
    ['create a/s/new', 'delete a'],
    ['create_nodes in a/s', 'rename a to new'],
    ['create_nodes in a and e', 'delete e'],
  ],
  'ensure_directory creates the path that was given': [
    ['ensure a/new/deep', 'ensure a/new/deep'],
    ['ensure a/new/deep', 'rename a to new'],
    ['ensure a/new/deep', 'rename a to new ~'],
    ['ensure a/new/deep', 'delete a'],
    ['ensure a/new/deep', 'delete a ~'],
  ],
  'upsert_file writes the path that was given': [
    ['upsert a/f', 'rename a to new'],
    ['upsert a/f', 'delete a'],
    ['upsert a/f', 'move a/f to b'],
    ['upsert a/new', 'rename a to new'],
    ['upsert a/new', 'delete a'],
    ['upsert a/new', 'ensure a/new/deep'],
  ],
  'of two callers with one expected version, one is refused': [
    ['upsert a/dead', 'upsert a/dead'],
    ['upsert a/f as it was at 1', 'upsert a/f as it was at 1'],
    ['rename a/f at 1', 'rename a/f at 1'],
    ['merge a/s/h at 2', 'update a/s/h and b/f'],
    ['delete b at 1', 'move b to a/s'],
    ['label m at 1', 'label m at 1'],
  ],
  'no directory moves into itself': [
    ['move a to b', 'move b to a/s'],
    ['move a to b by update', 'move b to a/s'],
  ],
  'a delete takes the nodes that it finds': [
    ['delete a/f', 'merge a/f'],
    ['delete a/f', 'see a/f and b/f + merge a/f'],
    ['delete e', 'create directory e/new'],
    ['delete a', 'states of a/f and a/s/h'],
    ['delete a in batches + delete a in batches', 'see a/f and b/f'],
  ],
  'a copy is of one moment, and in a live directory': [
    ['copy a to e', 'copy a to e'],
    ['copy a to e', 'delete e'],
    ['copy a over b', 'move b to a/s'],
    ['copy a/f to b/f', 'delete b at 1'],
  ],
  'a copy and a delete of its source at REPEATABLE READ are refused when a node was created, changed or deleted in between':
    [
      ['copy a to e + delete a at repeatable read', 'create a/s/new'],
      ['copy a to e + delete a at repeatable read', 'merge a'],
      ['copy a to e + delete a at repeatable read', 'delete a/s/h'],
    ],
  'no change is lost': [
    ['merge a/f', 'merge a/f'],
    ['label m', 'label m at 1'],
  ],
  'totals have every delta once': [
    ['fold', 'create a/new; fold'],
    ['create a/s/new', 'create a/new; fold'],
    ['fold', 'move a/s to e'],
    ['fold', 'move a to b by update'],
    ['fold', 'delete mount n by hand'],
    ['read totals', 'move a/s to e'],
  ],
  'a purge removes what stays deleted': [
    ['purge', 'purge'],
    ['purge', 'restore gone'],
    ['purge', 'see a/dead'],
  ],
  'a command begins, starts and ends once': [
    ['begin new', 'begin new'],
    ['begin new', 'begin new ~'],
    ['start queued', 'start queued'],
    ['start queued', 'start queued ~'],
    ['finish job', 'finish job'],
    ['finish job', 'fail job'],
    ['finish job', 'expire commands'],
    ['finish job', 'expire commands ~'],
    ['fail job', 'work on job + merge a/f + finish job'],
    ['work on job + merge a/f + finish job', 'work on job + merge a/f + finish job'],
    ['work on job + merge a/f + finish job', 'work on job + merge a/f + finish job ~'],
  ],
};

describe('in every order of the steps of two sessions', () => {
  test.each(Object.entries(PAIRS))('%s', async (rule, pairs) => {
    const cases = pairs.map((names) => caseOf(names));
    const tally = newTally();
    await runCases([worker], cases, tally);
    const summary = renderTally(cases, tally);
    expect(tally.differences, summary).toEqual([]);
    expect(tally.waits).toBeGreaterThan(0);
    // Refusals that no serial order has: what is done in any other case waits, and succeeds.
    const between = [...tally.onlyBetween.keys()].map((reason) => reason.split(' ')[0]);
    expect(between, summary).toEqual(
      rule.includes('REPEATABLE READ') ? ['nodes_not_empty', '40001', '40001'] : [],
    );
  });
});
