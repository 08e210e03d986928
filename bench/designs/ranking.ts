import type { DesignKey } from './design.ts';
import { find, type Measurement, type Operation, type Report } from './measurement-store.ts';

/** Designs within a tenth of each other count as equal. */
export const TOLERANCE = 1.1;

export const isMoreBetter = ({ unit }: Pick<Operation, 'unit'>) => unit === '/s' || unit === '%';

/** How many times worse one figure is than another: above 1 is worse. */
export function timesWorse(operation: Operation, value: number, than: number): number {
  return isMoreBetter(operation) ? than / value : value / than;
}

/**
 * Whether one measurement is better (-1) or worse (1) than another. They are equal (0) within the tolerance, and when the
 * middle halves of their rounds overlap: another run could show the opposite. Of three rounds, all count.
 */
export function orderOf(operation: Operation, one: Measurement, other: Measurement): -1 | 0 | 1 {
  const times = timesWorse(operation, one.p50, other.p50);
  if (times <= TOLERANCE && times >= 1 / TOLERANCE) return 0;
  const [a, b] = [middleHalf(one.rounds), middleHalf(other.rounds)];
  if (a.least <= b.most && b.least <= a.most) return 0;
  return times > 1 ? 1 : -1;
}

function middleHalf(rounds: readonly number[]): { readonly least: number; readonly most: number } {
  const sorted = [...rounds].sort((a, b) => a - b);
  const left = Math.floor(sorted.length / 4);
  return { least: sorted[left] ?? Number.NaN, most: sorted[sorted.length - 1 - left] ?? Number.NaN };
}

/** Measurements of an operation on the designs that compete, the best first; none of a part. The twin keeps no promise: it is a floor. */
export function competitors(report: Report, operation: Operation): readonly Measurement[] {
  if (operation.isPart) return [];
  return report.measurements
    .filter((found) => found.operation === operation.key && found.design !== 'twin')
    .sort((a, b) => timesWorse(operation, a.p50, b.p50) - 1);
}

/** The rank of each design: 1 for all that equal the best, and so on from the best of the rest. */
export function ranksOf(report: Report, operation: Operation): ReadonlyMap<DesignKey, number> {
  const ranks = new Map<DesignKey, number>();
  let leader: Measurement | undefined;
  let rank = 0;
  for (const [place, found] of competitors(report, operation).entries()) {
    if (leader === undefined || orderOf(operation, found, leader) > 0) {
      leader = found;
      rank = place + 1;
    }
    ranks.set(found.design, rank);
  }
  return ranks;
}

export interface Disagreement {
  readonly operation: string;
  readonly one: DesignKey;
  readonly other: DesignKey;
  /** Opposite: each run has another winner. Shifted: they are equal in one of the runs. */
  readonly kind: 'opposite' | 'shifted';
}

/** Pairs of designs whose order differs between two runs. */
export function disagreements(first: Report, second: Report): readonly Disagreement[] {
  return first.operations.flatMap((operation) => {
    const found = competitors(first, operation);
    return found.flatMap((one, place) =>
      found.slice(place + 1).flatMap((other): readonly Disagreement[] => {
        const before = orderIn(operation, first, one.design, other.design);
        const after = orderIn(operation, second, one.design, other.design);
        if (before === null || after === null || before === after) return [];
        return [
          {
            operation: operation.title,
            one: one.design,
            other: other.design,
            kind: before * after < 0 ? 'opposite' : 'shifted',
          },
        ];
      }),
    );
  });
}

function orderIn(operation: Operation, report: Report, one: DesignKey, other: DesignKey): -1 | 0 | 1 | null {
  const [a, b] = [find(report, operation.key, one), find(report, operation.key, other)];
  return a === undefined || b === undefined ? null : orderOf(operation, a, b);
}
