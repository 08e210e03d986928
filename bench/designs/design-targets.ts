import { atLeast, atMost, compare, type Result, type Target, thousands } from '../measure.ts';
import { find, type Operation, type Report } from './measurement-store.ts';
import { competitors, TOLERANCE, timesWorse } from './ranking.ts';

/** A design that was made for an operation may be so many times faster there. */
const SPECIALITY = 1.5;

interface Pair {
  readonly what: string;
  readonly unit: Result['unit'];
  readonly here: readonly [operation: string, design: string];
  readonly other: readonly [operation: string, design: string];
  readonly target: Target;
}

/** A target with the key of the operation that it bounds. */
export interface JudgedTarget extends Result {
  readonly operation: string;
}

/** The bounds within one run. Pairs that were not measured are left out. */
export function judgeTargets(report: Report): readonly JudgedTarget[] {
  return pairs(report).flatMap(({ what, unit, here, other, target }) => {
    const [one, two] = [find(report, ...here), find(report, ...other)];
    if (one === undefined || two === undefined) return [];
    return [{ ...compare(what, unit, one.rounds, two.rounds, target), operation: one.operation }];
  });
}

function pairs({ sizes }: Report): readonly Pair[] {
  const wide = thousands(sizes.wide);
  const create = (connections: number, least: number): Pair => ({
    what: `create, ${connections} connection${connections === 1 ? '' : 's'}, against the unguarded twin`,
    unit: '/s',
    here: [`create${connections}spread`, 'this'],
    other: [`create${connections}spread`, 'twin'],
    target: atLeast(least),
  });
  const tree = (change: 'move' | 'delete' | 'restore', most: number): Pair => ({
    what: `${change} ${wide} nodes, against a bare update with the same indexes`,
    unit: 's',
    here: [`${change}Wide`, 'this'],
    other: [`${change}Wide`, 'twin'],
    target: atMost(most),
  });
  return [
    {
      what: 'path → node in plain SQL, against a key lookup',
      unit: 'ms',
      here: ['resolve', 'this'],
      other: ['byId', 'this'],
      target: atMost(1.1),
    },
    {
      what: 'path → node as node_by_path(), against a key lookup',
      unit: 'ms',
      here: ['nodeByPath', 'this'],
      other: ['byId', 'this'],
      target: atMost(1.3),
    },
    {
      what: 'a deep page, against the first page',
      unit: 'ms',
      here: ['deepPage', 'this'],
      other: ['firstPage', 'this'],
      target: atMost(1.1),
    },
    {
      what: `sum of a subtree of ${wide}, against the same scan of (b)`,
      unit: 'ms',
      here: ['subtreeSumWide', 'this'],
      other: ['subtreeSumWide', 'b'],
      target: atMost(1.05),
    },
    create(1, 0.67),
    create(8, 0.65),
    create(32, 0.6),
    {
      what: 'content write, 8 connections, against the unguarded twin',
      unit: '/s',
      here: ['overwrite8', 'this'],
      other: ['overwrite8', 'twin'],
      target: atLeast(0.6),
    },
    {
      what: 'create, 8 connections, beside folds, against alone',
      unit: '/s',
      here: ['createFoldsbeside', 'this'],
      other: ['createFoldsalone', 'this'],
      target: atLeast(0.8),
    },
    {
      what: 'a row of a batch of 1,000, against a row of a bulk load',
      unit: 'ms',
      here: ['batch', 'this'],
      other: ['bulk', 'this'],
      target: atMost(1.5),
    },
    tree('move', 2),
    tree('delete', 2.3),
    tree('restore', 2.5),
    {
      what: 'bytes per node, against (b)',
      unit: 'bytes',
      here: ['bytesPerNode', 'this'],
      other: ['bytesPerNode', 'b'],
      target: atMost(1.2),
    },
  ];
}

/** An operation where another design is ahead of this schema by more than the tolerance. */
export interface Behind {
  readonly operation: Operation;
  readonly design: string;
  readonly times: number;
  readonly isSpeciality: boolean;
  /** Within what is allowed for a speciality. */
  readonly isAllowed: boolean;
}

export function findBehind(report: Report): readonly Behind[] {
  return report.operations.flatMap((operation) => {
    const here = find(report, operation.key, 'this');
    if (here === undefined) return [];
    return competitors(report, operation).flatMap((found): readonly Behind[] => {
      const times = timesWorse(operation, here.p50, found.p50);
      const design = report.designs.find(({ key }) => key === found.design);
      if (found.design === 'this' || times <= TOLERANCE || design === undefined) return [];
      const isSpeciality = design.specialities.some((speciality) => operation.key.startsWith(speciality));
      return [
        {
          operation,
          design: design.key,
          times,
          isSpeciality,
          isAllowed: isSpeciality && times <= SPECIALITY,
        },
      ];
    });
  });
}
