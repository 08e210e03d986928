import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import type { Mutant } from './mutants.ts';
import type { Result } from './results.ts';
import type { RecordedFile } from './session.ts';

/** Which tests touch an object, and which of them are likely to catch a change. */
export interface Chooser {
  /** The files that touch it: those that caught a change of the object before, those that name it, then the fastest. */
  choose(mutant: Mutant): readonly string[];
  learn(mutant: Mutant, result: Result): void;
}

export function openChooser(files: ReadonlyMap<string, RecordedFile>): Chooser {
  const texts = new Map(
    [...files.keys()].map((file) => [file, readFileSync(join(PACKAGE_ROOT, file), 'utf8')]),
  );
  const callers = readCallers();
  const caught = new Map<string, Map<string, number>>();

  function isTouching(file: string, { object, kind }: Mutant): boolean {
    const called = files.get(file)?.functions ?? [];
    // These tests drop the schema with its owner, for whom they migrate.
    if (called.length === 0 && /access|renew|right/.test(`${object} ${kind}`)) return true;
    // The server counts no calls of a function that it inlines, and none of a view: their callers' calls count.
    return (
      names(texts.get(file) ?? '', object) ||
      [object, ...(callers.get(object) ?? [])].some((name) => called.includes(name))
    );
  }

  return {
    choose(mutant) {
      const { object, kind, where } = mutant;
      const times = caught.get(object) ?? new Map<string, number>();
      const part = where.replace('filestore.', '');
      const rank = (file: string) => {
        const text = texts.get(file) ?? '';
        const isNamed = names(text, part) || names(text, object);
        const isBeside = kind.includes('lock') && text.includes('sendAndBlock(');
        // prepare_mount: mounts.test.ts
        const words = object.split('_').filter((word) => word.length > 3 && file.includes(word));
        const weight =
          1 + 10 * (times.get(file) ?? 0) + (isNamed ? 4 : 0) + 2 * words.length + (isBeside ? 20 : 0);
        return (files.get(file)?.seconds ?? 0) / weight;
      };
      return [...files.keys()].filter((file) => isTouching(file, mutant)).sort((a, b) => rank(a) - rank(b));
    },
    learn({ object }, { by }) {
      if (by === undefined) return;
      const times = caught.get(object) ?? new Map<string, number>();
      times.set(by.file, (times.get(by.file) ?? 0) + 1);
      caught.set(object, times);
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
