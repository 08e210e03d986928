import type { Case } from './judge.ts';
import { OPERATIONS, sessionOf } from './operations.ts';

/** The cut-over of a mount that moves to another server, beside writers. */
const MOVES: readonly string[] = [
  'close m',
  'close m; release m',
  'close m; let time run out',
  'close m; let time run out; release m',
];

/** An import in its batches: the procedure sends these. */
export const IMPORT = 'begin import; arrange; take first; fold; take rest; fold; end import';

/** Changes of what the import brings, which concern no other operation. */
const ONLY_BESIDE_IMPORT: readonly string[] = [
  'merge z:i',
  'move z:x to z:d',
  'move z:d/g to z:x',
  'delete z:x',
  'delete mount z',
];

/** What runs beside an import into the mount z: all that concerns this mount, and upkeep. */
const BESIDE_IMPORT: readonly string[] = [
  ...ONLY_BESIDE_IMPORT,
  'create z:x/new',
  'upsert z:x/y',
  'restore z:x/dead',
  'see z:x/y',
  'sync z',
  'begin scan of z',
  'activate z',
  'purge',
  'purge one',
  'prune history',
  'fold',
  'begin to erase z; erase some of z; erase some of z',
];

const NOT_IN_PAIRS: readonly string[] = [
  ...MOVES.flatMap((name) => name.split('; ')),
  ...IMPORT.split('; ').filter((name) => name !== 'fold'),
  ...ONLY_BESIDE_IMPORT,
];

const NAMES = Object.keys(OPERATIONS).filter((name) => !NOT_IN_PAIRS.includes(name));

/** Transactions of several operations, and sessions of several transactions. */
const LONGER: readonly string[] = [
  'work on job + merge a/f + finish job',
  'work on job + delete a/s + fail job',
  'start queued; work on queued + upsert a/new + finish queued',
  'begin new + merge a/f',
  'merge a/f + rename a/f to new',
  'merge a + move a to b',
  'upsert a/new + delete a/f',
  'upsert a/f + upsert gone/x',
  'delete a/f + create a/new + upsert a/f',
  'copy a to n + delete a at repeatable read',
  'copy a to e + delete a at repeatable read',
  'lock m shared + merge a/f + move a/f to b',
  'lock m + move a/s to e + move b to a/s',
  'move a/s to e + move a/f to b',
  'move a/f to b + move a/s to e',
  'move a/s to e + delete a',
  'delete e + ensure e/new',
  'delete a/s + restore a/s',
  'delete a/s; restore a/s',
  'restore gone + upsert gone/x',
  'restore gone alone + restore gone/x',
  'create_nodes in a and e + update a/g and a/f',
  'sync a + see a/f and b/f',
  'states of a/f and a/s/h + delete a/f',
  'upsert directory a/f + create a/new',
  'fold + merge a/f',
  'purge + restore gone',
  'recount + move a to b',
  'create mount o + create mount in o',
  'label m + create /new',
  'record entries + apply scan',
  'apply scan; apply scan; apply scan; apply scan',
  'delete a in batches; delete a in batches; delete a in batches',
  'begin to erase z; erase some of z; erase some of z; erase some of z',
];

/** Those that are also run beside a transaction that is rolled back, and at the other isolation levels. */
const CHOSEN: readonly string[] = [
  'create a/new',
  'create a/s/new',
  'create n:new',
  'upsert a/new',
  'upsert a/f',
  'merge a/f',
  'update a/g and a/f',
  'states of a/f and a/s/h',
  'move a/f to b/g',
  'move a to b',
  'move b to a/s',
  'move a/s to e',
  'copy a over b',
  'delete a/f',
  'delete a/s',
  'restore gone',
  'revert a/g to 1',
  'see a/f and b/f',
  'see n',
  'fold',
  'purge',
  'begin new',
  'finish job',
  'sync a',
  'apply scan',
  'label m',
  'delete mount n by hand',
];

/** In threes. */
const IN_THREES: readonly string[] = [
  'create a/s/new',
  'move a/f to b/g',
  'move a to b',
  'move b to a/s',
  'move a/s to e',
  'delete a/s',
  'delete a',
  'restore gone',
  'fold',
];

const READ_COMMITTED = 'read committed';

/** Transactions whose writes are not in order, so that they can deadlock. */
const isUnordered = (name: string): boolean =>
  name.split('; ').some((transaction) => transaction.includes(' + ') && !transaction.startsWith('lock m')) ||
  name.includes('by update');

export const caseOf = (names: readonly string[], isolation = READ_COMMITTED): Case => ({
  sessions: names.map(sessionOf),
  isolation,
  mayDeadlock: names.some(isUnordered),
  isMoving: names.some((name) => name.includes('close m')),
});

const pairs = (names: readonly string[]) =>
  names.flatMap((one, at) => names.slice(at).map((other) => [one, other]));

/** The orders of the steps of some sessions, if none of them ever waited or was refused. */
export function ordersOnPaper({ sessions }: Case): number {
  let orders = 1;
  let sent = 0;
  for (const { transactions } of sessions) {
    const steps = transactions.reduce((sum, { statements }) => sum + statements.length + 1, 0);
    for (let step = 1; step <= steps; step += 1) {
      sent += 1;
      orders = (orders * sent) / step;
    }
  }
  return orders;
}

/** Pairs with more take longer than all others together. */
const MOST_ORDERS = 100;

/** All cases, by what they are. */
export function casesByKind(): Readonly<Record<string, readonly Case[]>> {
  return {
    'pairs of operations': pairs(NAMES).map((names) => caseOf(names)),
    'pairs of which one is rolled back': CHOSEN.flatMap((one) =>
      CHOSEN.map((other) => caseOf([`${one} ~`, other])),
    ),
    'longer transactions beside an operation': LONGER.flatMap((one) =>
      CHOSEN.map((other) => caseOf([one, other])),
    ),
    'pairs of longer transactions': pairs(LONGER)
      .map((names) => caseOf(names))
      .filter((one) => ordersOnPaper(one) <= MOST_ORDERS),
    threes: IN_THREES.flatMap((one, at) =>
      pairs(IN_THREES.slice(at)).map((others) => caseOf([one, ...others])),
    ),
    'beside the cut-over of a mount': MOVES.flatMap((one) =>
      [...CHOSEN, ...MOVES].map((other) => caseOf([one, other])),
    ),
    'beside an import': BESIDE_IMPORT.map((name) => caseOf([IMPORT, name])),
    'repeatable read': pairs(CHOSEN).map((names) => caseOf(names, 'repeatable read')),
    serializable: pairs(CHOSEN).map((names) => caseOf(names, 'serializable')),
  };
}

/** The case of these sessions at each isolation level. */
export const casesOf = (names: readonly string[]): readonly Case[] =>
  [READ_COMMITTED, 'repeatable read', 'serializable'].map((isolation) => caseOf(names, isolation));
