import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import type { Mutant } from './mutants.ts';
import { isRandom } from './random-sequences.ts';
import type { RecordedFile } from './session.ts';

/** Which tests touch an object, and which of them are likely to catch a change. */
export interface Chooser {
  /** The files that touch it, first those that are likely to catch it soon. */
  choose(mutant: Mutant): readonly string[];
  /** That these files ran in this order until one, if any, caught a change. */
  learn(object: string, kind: string, ran: readonly string[], by: string | undefined): void;
}

/** They read the catalog: the rights and settings of all functions and tables. */
const CATALOG_FILES = ['catalog', 'callable-functions', 'access-catalog'].map(
  (name) => `test/schema/${name}.test.ts`,
);
const CATALOG_KINDS = /^(right|security.definer|search_path|strict)/;

export function openChooser(files: ReadonlyMap<string, RecordedFile>): Chooser {
  const texts = new Map(
    [...files.keys()].map((file) => [file, readFileSync(join(PACKAGE_ROOT, file), 'utf8')]),
  );
  const callers = readCallers();
  const tallies = new Map<string, { ran: number; caught: number }>();
  // Locks are the matter of other tests than conditions are.
  const tallyOf = (object: string, kind: string, file: string) => {
    const key = `${object} ${kind.includes('lock')} ${file}`;
    const tally = tallies.get(key) ?? { ran: 0, caught: 0 };
    tallies.set(key, tally);
    return tally;
  };

  function isTouching(file: string, { object, kind }: Mutant): boolean {
    const called = files.get(file)?.functions ?? [];
    if (CATALOG_FILES.includes(file)) return CATALOG_KINDS.test(kind);
    // These tests drop the schema with its owner, for whom they migrate.
    if (called.length === 0 && /access|renew|right/.test(`${object} ${kind}`)) return true;
    // The server counts no calls of a function that it inlines, and none of a view: their callers' calls count.
    return (
      names(texts.get(file) ?? '', object) ||
      [object, ...(callers.get(object) ?? [])].some((name) => called.includes(name))
    );
  }

  /** The chance that a file catches a change before anything is known. */
  function guess(file: string, { object, kind, where }: Mutant): number {
    if (CATALOG_FILES.includes(file))
      return file.includes('callable') === (object === 'access_rights') ? 1 : 0.2;
    if (isRandom(file)) return kind.includes('lock') ? 0.02 : 0.3;
    const text = texts.get(file) ?? '';
    const part = where.replace('filestore.', '');
    const times = [object, part].map((name) => text.split(new RegExp(`\\b${name}\\b`)).length - 1);
    const isBeside = kind.includes('lock') && /sendAndBlock\(|lock_tree/.test(text);
    // prepare_mount: mounts.test.ts
    const words = object.split('_').filter((word) => word.length > 3 && file.includes(word));
    return Math.min(0.9, 0.03 + 0.07 * Math.max(...times) + 0.1 * words.length + (isBeside ? 0.4 : 0));
  }

  return {
    choose(mutant) {
      const { object, kind } = mutant;
      /** How long it takes to catch a change with this file alone, on average. */
      const rank = (file: string) => {
        const { ran, caught } = tallyOf(object, kind, file);
        const chance = (caught + 2 * guess(file, mutant)) / (ran + 2);
        return ((files.get(file)?.seconds ?? 0) + 0.2) / chance;
      };
      return [...files.keys()].filter((file) => isTouching(file, mutant)).sort((a, b) => rank(a) - rank(b));
    },
    learn(object, kind, ran, by) {
      for (const file of ran) {
        const tally = tallyOf(object, kind, file);
        tally.ran += 1;
        if (file !== by) continue;
        tally.caught += 1;
        return;
      }
    },
  };
}

const names = (text: string, object: string): boolean => new RegExp(`\\b${object}\\b`).test(text);

/** The functions whose text names an object. A trigger's are its function, a table's all that name it. */
function readCallers(): ReadonlyMap<string, readonly string[]> {
  const folder = join(PACKAGE_ROOT, 'migrations/fixtures');
  const callers = new Map<string, string[]>();
  const add = (object: string, caller: string) =>
    callers.set(object, [...(callers.get(object) ?? []), caller]);
  for (const file of readdirSync(join(folder, 'functions'))) {
    const name = file.replace('.sql', '');
    const text = readFileSync(join(folder, 'functions', file), 'utf8');
    for (const called of new Set([...text.matchAll(/\bfilestore\.(\w+)/g)].map(([, found = '']) => found)))
      if (called !== name) add(called, name);
  }
  for (const file of readdirSync(join(folder, 'triggers'))) {
    const text = readFileSync(join(folder, 'triggers', file), 'utf8');
    const called = /execute function filestore\.(\w+)/.exec(text)?.[1];
    if (called !== undefined) add(file.replace('.sql', ''), called);
  }
  return callers;
}
