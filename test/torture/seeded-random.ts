import { mulberry32 } from '../support/mulberry32.ts';

/** Choices that depend only on a seed. The outcome of a concurrent run also depends on timing. */
export interface Random {
  /** In [0, 1). */
  next(): number;
  /** A whole number from `low` to `high`, both included. */
  between(low: number, high: number): number;
  chance(probability: number): boolean;
  /** One of the items; undefined when there is none. */
  pick<T>(items: readonly T[]): T | undefined;
  /** One of the items, the first ones more often. */
  pickEarly<T>(items: readonly T[]): T | undefined;
}

export function seededRandom(seed: number): Random {
  const next = mulberry32(seed);
  return {
    next,
    between: (low, high) => low + Math.floor(next() * (high - low + 1)),
    chance: (probability) => next() < probability,
    pick: (items) => items[Math.floor(next() * items.length)],
    pickEarly: (items) => items[Math.floor(next() ** 2 * items.length)],
  };
}
