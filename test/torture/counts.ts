/** Counts of what happened in a run. */
export interface Tally {
  readonly operations: Map<string, number>;
  readonly errors: Map<string, number>;
  /** Descriptions of the first problems. */
  readonly faults: string[];
  unexpectedErrors: number;
  deadlocks: number;
  reconnects: number;
  settled: number;
  sharedKeys: number;
  serverKills: number;
  backendsTerminated: number;
  /** Steps of mounts that were created, moved and erased. */
  mountsPassed: number;
  readings: number;
  wrongReadings: number;
}

export function createTally(): Tally {
  return {
    operations: new Map(),
    errors: new Map(),
    faults: [],
    unexpectedErrors: 0,
    deadlocks: 0,
    reconnects: 0,
    settled: 0,
    sharedKeys: 0,
    serverKills: 0,
    backendsTerminated: 0,
    mountsPassed: 0,
    readings: 0,
    wrongReadings: 0,
  };
}

export function count(counts: Map<string, number>, key: string): void {
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

const FAULTS_IN_WORDS = 20;

export function noteFault(tally: Tally, words: string): void {
  if (tally.faults.length < FAULTS_IN_WORDS) tally.faults.push(words);
}

/** Whether a problem was seen during the run. */
export function hasFaults(tally: Tally): boolean {
  return tally.wrongReadings + tally.deadlocks + tally.unexpectedErrors > 0;
}

export function total(counts: ReadonlyMap<string, number>): number {
  return [...counts.values()].reduce((sum, value) => sum + value, 0);
}
