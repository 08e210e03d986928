export interface Tallied<Value> {
  readonly total: number;
  /** The first values; at most as many as the tally keeps. */
  readonly first: readonly Value[];
}

/** Counts values by a key, and keeps the first ones of each, so that its memory does not grow with their number. */
export class Tally<Key, Value> {
  readonly #kept: number;
  readonly #groups = new Map<Key, { total: number; readonly first: Value[] }>();

  constructor(kept = 20) {
    this.#kept = kept;
  }

  add(key: Key, value: Value): void {
    const group = this.#groups.get(key) ?? { total: 0, first: [] };
    this.#groups.set(key, group);
    group.total += 1;
    if (group.first.length < this.#kept) group.first.push(value);
  }

  get(key: Key): Tallied<Value> | undefined {
    return this.#groups.get(key);
  }

  keys(): readonly Key[] {
    return [...this.#groups.keys()];
  }
}

/** The lines of a group, one for each kept value, and one for the others. */
export function linesOf({ total, first }: Tallied<string>): string {
  const rest = total > first.length ? [`… and ${(total - first.length).toLocaleString('en')} more`] : [];
  return [...first, ...rest].map((line) => `  ${line}`).join('\n');
}
