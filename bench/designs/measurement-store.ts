import { mkdirSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Environment } from '../bench-server.ts';
import { median, type Result } from '../measure.ts';
import type { DesignFacts } from './design.ts';

type Unit = 'ms' | 's' | '/s' | 'bytes' | '%';

/** Something that is measured for one or more designs. */
export interface Operation {
  readonly key: string;
  readonly group: string;
  readonly title: string;
  /** Of '/s' and '%' more is better, of all others less. */
  readonly unit: Unit;
  readonly note?: string;
  /** Part of another figure: no design wins or loses by it alone. */
  readonly isPart?: boolean;
}

export interface Measurement {
  readonly operation: string;
  /** Key of a design. */
  readonly design: string;
  /** One figure for each round: the median of its calls, or a rate. */
  readonly rounds: readonly number[];
  readonly p50: number;
  /** Of all calls; null where there are fewer than 20. */
  readonly p99: number | null;
  readonly calls: number;
  /** Pages of one call, those of triggers included. */
  readonly buffers: number | null;
  /** Bytes of WAL of one call, or of one row. */
  readonly walBytes: number | null;
}

/** What happened to a design when several connections wrote at once. */
export interface Race {
  readonly race: string;
  /** Key of a design. */
  readonly design: string;
  readonly writes: number;
  readonly refused: number;
  readonly deadlocks: number;
  /** Live nodes that were found below a deleted directory. */
  readonly orphans: number;
  /** Nodes that no way from the root reaches. */
  readonly unreachable: number;
  /** Rows with a wrong path, ancestor or total. */
  readonly wrong: number;
}

export interface Calibration {
  readonly when: string;
  readonly emptyStatementMs: number;
  readonly keyLookupMs: number;
  readonly fsyncMs: number;
}

export interface Report {
  readonly command: string;
  readonly startedAt: string;
  readonly finished: boolean;
  readonly nodes: number;
  readonly rounds: number;
  readonly seconds: number;
  readonly sizes: { readonly small: number; readonly large: number; readonly wide: number };
  readonly environment: Environment & { readonly load: string; readonly collation: string };
  readonly designs: readonly DesignFacts[];
  readonly unavailable: readonly { readonly key: string; readonly why: string }[];
  readonly calibrations: readonly Calibration[];
  readonly operations: readonly Operation[];
  readonly measurements: readonly Measurement[];
  readonly races: readonly Race[];
  readonly targets: readonly (Result & { readonly operation: string })[];
}

type Fixed = Omit<
  Report,
  | 'finished'
  | 'calibrations'
  | 'operations'
  | 'measurements'
  | 'races'
  | 'targets'
  | 'unavailable'
  | 'sizes'
  | 'nodes'
>;

/** Keeps what was measured, and writes it to a file each time: an interrupted run loses nothing. */
export class MeasurementStore {
  readonly #file: string;
  #report: Report;

  constructor(folder: string, fixed: Fixed) {
    mkdirSync(folder, { recursive: true });
    this.#file = join(folder, 'report.json');
    this.#report = {
      ...fixed,
      nodes: 0,
      sizes: { small: 0, large: 0, wide: 0 },
      finished: false,
      unavailable: [],
      calibrations: [],
      operations: [],
      measurements: [],
      races: [],
      targets: [],
    };
  }

  get report(): Report {
    return this.#report;
  }

  set(change: Partial<Report>): void {
    this.#report = { ...this.#report, ...change };
    writeFileSync(`${this.#file}.new`, `${JSON.stringify(this.#report, null, 1)}\n`);
    renameSync(`${this.#file}.new`, this.#file);
  }

  add(operation: Operation, measurement: Omit<Measurement, 'operation'>): void {
    const { operations, measurements } = this.#report;
    this.set({
      operations: operations.some(({ key }) => key === operation.key)
        ? operations
        : [...operations, operation],
      measurements: [...measurements, { operation: operation.key, ...measurement }],
    });
  }

  addRace(race: Race): void {
    this.set({ races: [...this.#report.races, race] });
  }

  addCalibration(calibration: Calibration): void {
    this.set({ calibrations: [...this.#report.calibrations, calibration] });
  }
}

/** Finds a measurement of a report. */
export function find(report: Report, operation: string, design: string): Measurement | undefined {
  return report.measurements.find((found) => found.operation === operation && found.design === design);
}

/** A measurement of rounds that are figures already, such as rates. */
export function ofRounds(
  design: string,
  rounds: readonly number[],
  more: Partial<Pick<Measurement, 'buffers' | 'walBytes' | 'p99' | 'calls'>> = {},
): Omit<Measurement, 'operation'> {
  return {
    design,
    rounds,
    p50: median(rounds),
    p99: null,
    calls: rounds.length,
    buffers: null,
    walBytes: null,
    ...more,
  };
}
