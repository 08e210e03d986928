import { rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readIfThere } from '../read-if-there.ts';

/** A file that gets a new name and new content. */
export interface Replacement {
  readonly from: string;
  readonly to: string;
  /** Its content under the old name, and then under the new one. */
  readonly before: string;
  readonly after: string;
}

type Contents = ReadonlyMap<string, string | undefined>;

/**
 * Replaces files of a folder. The plan is written to `journal` first, so after a kill no file is lost and {@link
 * finishReplacing} does the rest.
 * @param replacements In the order of their names, old and new.
 */
export async function replaceFiles(
  folder: string,
  journal: string,
  replacements: readonly Replacement[],
): Promise<void> {
  if (replacements.length === 0) return;
  await writeWhole(journal, JSON.stringify(replacements));
  await settle(folder, replacements);
  await rm(journal);
}

/**
 * Finishes the replacements that a killed run began.
 * @returns the replacements of that run; empty if there are none, or if the files do not match its plan.
 */
export async function finishReplacing(folder: string, journal: string): Promise<readonly Replacement[]> {
  const text = await readIfThere(journal);
  if (text === undefined) return [];
  const replacements: readonly Replacement[] = JSON.parse(text);
  const before: Contents = new Map(replacements.map((one) => [one.from, one.before]));
  const after: Contents = new Map(replacements.map((one) => [one.to, one.after]));
  const now = new Map<string, string | undefined>();
  for (const name of [...before.keys(), ...after.keys()]) {
    now.set(name, await readIfThere(join(folder, name)));
  }
  const names = [...now.keys()];
  const isMidway =
    names.some((name) => now.get(name) !== before.get(name)) &&
    names.every((name) => [before.get(name), after.get(name)].includes(now.get(name)));
  if (isMidway) await settle(folder, replacements);
  await rm(journal);
  return isMidway ? replacements : [];
}

/** From the last to the first, because a new name can be the old name of the next file. */
async function settle(folder: string, replacements: readonly Replacement[]): Promise<void> {
  for (const { to, after } of replacements.toReversed()) await writeWhole(join(folder, to), after);
  const kept = new Set(replacements.map(({ to }) => to));
  for (const { from } of replacements) if (!kept.has(from)) await rm(join(folder, from), { force: true });
}

/** Writes the file atomically. */
async function writeWhole(path: string, content: string): Promise<void> {
  const beside = `${path}.new`;
  await writeFile(beside, content, { flush: true });
  await rename(beside, path);
}
