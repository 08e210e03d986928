import type { Measurement, Operation, Report } from './measurement-store.ts';

/** Designs within a tenth of each other count as equal. */
export const TOLERANCE = 1.1;

const isMoreBetter = ({ unit }: Pick<Operation, 'unit'>) => unit === '/s' || unit === '%';

/** How many times worse one figure is than another: above 1 is worse. */
export function timesWorse(operation: Operation, value: number, than: number): number {
  return isMoreBetter(operation) ? than / value : value / than;
}

/** Measurements of an operation on the designs that compete, the best first; none of a part. The twin keeps no promise: it is a floor. */
export function competitors(report: Report, operation: Operation): readonly Measurement[] {
  if (operation.isPart) return [];
  return report.measurements
    .filter((found) => found.operation === operation.key && found.design !== 'twin')
    .sort((a, b) => timesWorse(operation, a.p50, b.p50) - 1);
}

/** The rank of each design: 1 for all that are within the tolerance of the best, and so on from the best of the rest. */
export function ranksOf(report: Report, operation: Operation): ReadonlyMap<string, number> {
  const ranks = new Map<string, number>();
  let leader: Measurement | undefined;
  let rank = 0;
  for (const [place, found] of competitors(report, operation).entries()) {
    if (leader === undefined || timesWorse(operation, found.p50, leader.p50) > TOLERANCE) {
      leader = found;
      rank = place + 1;
    }
    ranks.set(found.design, rank);
  }
  return ranks;
}

export interface Disagreement {
  readonly operation: string;
  readonly one: string;
  readonly other: string;
  /** Opposite: each run has another winner. Shifted: they are equal in one of the runs. */
  readonly kind: 'opposite' | 'shifted';
}

/** Pairs of designs whose order differs between two runs. */
export function disagreements(first: Report, second: Report): readonly Disagreement[] {
  return first.operations.flatMap((operation) => {
    const found = competitors(first, operation);
    return found.flatMap((one, place) =>
      found.slice(place + 1).flatMap((other): readonly Disagreement[] => {
        const before = orderOf(operation, first, one.design, other.design);
        const after = orderOf(operation, second, one.design, other.design);
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

function orderOf(operation: Operation, report: Report, one: string, other: string): -1 | 0 | 1 | null {
  const of = (design: string) =>
    report.measurements.find((found) => found.operation === operation.key && found.design === design)?.p50;
  const [a, b] = [of(one), of(other)];
  if (a === undefined || b === undefined) return null;
  const times = timesWorse(operation, a, b);
  return times > TOLERANCE ? 1 : times < 1 / TOLERANCE ? -1 : 0;
}
