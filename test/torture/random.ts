/** Choices that a seed fixes. What a concurrent run makes of them, it does not. */
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

/** Mulberry32: small, and even enough to choose by. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    next,
    between: (low, high) => low + Math.floor(next() * (high - low + 1)),
    chance: (probability) => next() < probability,
    pick: (items) => items[Math.floor(next() * items.length)],
    pickEarly: (items) => items[Math.floor(next() ** 2 * items.length)],
  };
}
