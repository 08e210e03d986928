import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { EXPLAINED } from './explained.ts';
import { hash, type Mutant } from './mutants.ts';
import type { Failure, RecordedFile } from './session.ts';

/** What became of a mutant. `refused`: the server did not accept it. */
export interface Result {
  readonly id: string;
  /** Of the mutant's text: a changed object is tested again. */
  readonly hash: string;
  readonly outcome: 'caught' | 'survived' | 'refused';
  readonly by?: Failure;
  readonly seconds: number;
  /** How many files ran, and how many would touch the object. */
  readonly ran: number;
  readonly touching: number;
}

/** The folder with the results of all runs, and what each test file does with the unchanged schema. */
export interface Store {
  readonly files: Map<string, RecordedFile>;
  readonly results: Map<string, Result>;
  saveFile(name: string, recorded: RecordedFile): void;
  save(result: Result): void;
}

export const keyOf = (mutant: Mutant): string => `${mutant.id} ${hash(mutant.sql)}`;

const FILES = 'files.json';
const RESULTS = 'results.jsonl';

export function openStore(folder: string): Store {
  mkdirSync(folder, { recursive: true });
  const read = (name: string) =>
    existsSync(join(folder, name)) ? readFileSync(join(folder, name), 'utf8') : undefined;
  const files = new Map<string, RecordedFile>(Object.entries(JSON.parse(read(FILES) ?? '{}')));
  const results = new Map<string, Result>();
  // The last line of a killed run may be half a line.
  for (const line of (read(RESULTS) ?? '').split('\n').slice(0, -1)) {
    const result: Result = JSON.parse(line);
    results.set(`${result.id} ${result.hash}`, result);
  }
  return {
    files,
    results,
    saveFile(name, recorded) {
      files.set(name, recorded);
      writeFileSync(join(folder, FILES), JSON.stringify(Object.fromEntries(files), null, 1));
    },
    save(result) {
      results.set(`${result.id} ${result.hash}`, result);
      appendFileSync(join(folder, RESULTS), `${JSON.stringify(result)}\n`);
    },
  };
}

/** Why a survivor needs no test, if it is explained. */
export function explanationOf({ id, kind }: Mutant): string | undefined {
  return EXPLAINED[id] ?? EXPLAINED[kind];
}

interface Sums {
  caught: number;
  explained: number;
  survived: number;
  refused: number;
  left: number;
}

/** The share that was caught by object and by kind, and each survivor. */
export function renderReport(mutants: readonly Mutant[], { results }: Store): string {
  const all = emptySums();
  const byObject = new Map<string, Sums>();
  const byKind = new Map<string, Sums>();
  const survivors: string[] = [];
  let timedOut = 0;
  for (const mutant of mutants) {
    const outcome = outcomeOf(mutant, results.get(keyOf(mutant)));
    for (const [sums, name] of [
      [byObject, mutant.object],
      [byKind, mutant.kind],
    ] as const) {
      const found = sums.get(name) ?? emptySums();
      found[outcome] += 1;
      sums.set(name, found);
    }
    all[outcome] += 1;
    if (/timed out|statement timeout/.test(results.get(keyOf(mutant))?.by?.message ?? '')) timedOut += 1;
    if (outcome === 'survived') survivors.push(`${mutant.id}\n    ${mutant.where}: ${mutant.change}`);
  }
  return [
    ...renderTable('object', byObject),
    ...renderTable('kind', byKind),
    `Survivors without an explanation: ${survivors.length}`,
    ...survivors,
    '',
    `${mutants.length} mutants: ${renderSums(all)}`,
    `${timedOut} were caught because a test did not end.`,
  ].join('\n');
}

const emptySums = (): Sums => ({ caught: 0, explained: 0, survived: 0, refused: 0, left: 0 });

function outcomeOf(mutant: Mutant, result: Result | undefined): keyof Sums {
  const isExplained = explanationOf(mutant) !== undefined;
  if (result === undefined) return isExplained ? 'explained' : 'left';
  return result.outcome === 'survived' && isExplained ? 'explained' : result.outcome;
}

function renderTable(title: string, sums: ReadonlyMap<string, Sums>): readonly string[] {
  const tested = [...sums].filter(([, { caught, explained, survived }]) => caught + explained + survived > 0);
  return [`By ${title}:`, ...tested.map(([name, of]) => `  ${name.padEnd(28)} ${renderSums(of)}`), ''];
}

function renderSums({ caught, explained, survived, refused, left }: Sums): string {
  const share = ((100 * (caught + explained)) / (caught + explained + survived || 1)).toFixed(1);
  return `${share.padStart(5)} % caught or explained: ${caught} caught, ${explained} explained, ${survived} survived; ${refused} do not compile, ${left} not tested`;
}
