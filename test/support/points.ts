import { mulberry32 } from './mulberry32.ts';

/** A moment of something at which something else happens. */
export interface Point {
  readonly name: string;
  /** Makes it happen, and returns what is wrong afterwards. */
  play(): Promise<readonly string[]>;
}

/** All points of one part. */
export interface Points {
  readonly all: readonly Point[];
  /** What was counted, for people. */
  summary(): string;
  stop(): Promise<void>;
}

/** A part of what is given, the same for each seed. */
export function sampleOf<T>(all: readonly T[], share: number, seed: number): readonly T[] {
  const random = mulberry32(seed);
  return all.filter(() => random() < share);
}

/** Plays some points of a part, prints each fault and the numbers, and returns the number of faults. */
export async function playPoints(
  part: string,
  points: Points,
  choose: (all: readonly Point[]) => readonly Point[],
): Promise<number> {
  const startedAt = performance.now();
  const chosen = choose(points.all);
  let faults = 0;
  try {
    for (const point of chosen) {
      for (const fault of await point.play()) {
        faults += 1;
        console.log(`FAULT  ${part}, ${point.name}: ${fault}`);
      }
    }
  } finally {
    await points.stop();
  }
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  console.log(
    `${part}: ${points.summary()}; ${chosen.length} of ${points.all.length} points, in ${seconds} s`,
  );
  return faults;
}
