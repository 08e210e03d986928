import type { Client } from 'pg';

export interface Target {
  readonly bound: 'at least' | 'at most';
  readonly value: number;
  /** Whether the target is for the ratio or for the figure. */
  readonly of: 'ratio' | 'here';
}

/** One line of the report. */
export interface Result {
  readonly what: string;
  readonly unit: '/s' | 's' | 'ms' | 'bytes' | 'MB' | '%' | 'count' | 'instructions';
  readonly here: number;
  /** The figure to compare with, measured in turns with `here`. */
  readonly other: number | null;
  readonly ratio: number | null;
  /** The smallest and largest ratio of a round; null for a single round. */
  readonly spread: readonly [least: number, most: number] | null;
  readonly target: Target | null;
  /** Null without a target. */
  readonly reached: boolean | null;
}

export const atLeast = (value: number): Target => ({ bound: 'at least', value, of: 'ratio' });
export const atMost = (value: number): Target => ({ bound: 'at most', value, of: 'ratio' });

/** Measures all variants in each round, beginning with a different one, so that other load affects all of them. */
export async function inTurns<Name extends string>(
  rounds: number,
  variants: Readonly<Record<Name, () => Promise<number>>>,
): Promise<Readonly<Record<Name, readonly number[]>>> {
  return figuresInTurns(rounds, variants);
}

/** The same for variants that measure several figures at once. */
export async function figuresInTurns<Name extends string, Figures>(
  rounds: number,
  variants: Readonly<Record<Name, () => Promise<Figures>>>,
): Promise<Readonly<Record<Name, readonly Figures[]>>> {
  const names = Object.keys(variants) as Name[];
  const samples = Object.fromEntries(names.map((name) => [name, [] as Figures[]])) as Record<Name, Figures[]>;
  for (let round = 0; round < rounds; round += 1) {
    for (let turn = 0; turn < names.length; turn += 1) {
      const name = names[(round + turn) % names.length] as Name;
      samples[name].push(await variants[name]());
    }
  }
  return samples;
}

/** The medians, and the median of the rounds' ratios. A slower statement may have fewer rounds: then of those that both have. */
export function compare(
  what: string,
  unit: Result['unit'],
  here: readonly number[],
  other: readonly number[],
  target: Target | null = null,
): Result {
  const ratios = here.slice(0, other.length).map((value, round) => value / (other[round] ?? Number.NaN));
  const spread = ratios.length > 1 ? ([Math.min(...ratios), Math.max(...ratios)] as const) : null;
  return judge({
    what,
    unit,
    here: median(here),
    other: median(other),
    ratio: median(ratios),
    spread,
    target,
  });
}

/** A figure without a comparison. */
export function single(
  what: string,
  unit: Result['unit'],
  here: readonly number[],
  target: Target | null = null,
): Result {
  return judge({ what, unit, here: median(here), other: null, ratio: null, spread: null, target });
}

function judge(result: Omit<Result, 'reached'>): Result {
  const { target } = result;
  if (target === null) return { ...result, reached: null };
  const value = target.of === 'ratio' ? (result.ratio ?? Number.NaN) : result.here;
  return { ...result, reached: target.bound === 'at least' ? value >= target.value : value <= target.value };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? Number.NaN) + (sorted[Math.floor(middle)] ?? Number.NaN)) / 2;
}

/** Seconds that the work takes. */
export async function secondsOf(work: () => Promise<unknown>): Promise<number> {
  const startedAt = performance.now();
  await work();
  return (performance.now() - startedAt) / 1000;
}

/** Median milliseconds of a statement, repeated for a time, at least three times. */
export async function callTime(
  client: Client,
  text: string,
  values: unknown[],
  duration: number,
): Promise<number> {
  const times: number[] = [];
  const end = performance.now() + duration * 1000;
  while (times.length < 3 || performance.now() < end) {
    times.push((await secondsOf(() => client.query({ name: text.slice(0, 60), text, values }))) * 1000);
  }
  return median(times);
}

/** Writes all dirty pages, so that an earlier measurement does not affect the next one. */
export async function settle(client: Client): Promise<void> {
  await client.query('checkpoint').catch((error: { readonly code?: string }) => {
    // The role may not run a checkpoint. Then the measurements only vary more.
    if (error.code !== '42501') throw error;
  });
}

/** A count as people read it: `20,000`. */
export const thousands = (count: number) => count.toLocaleString('en');
