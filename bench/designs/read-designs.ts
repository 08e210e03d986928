import { readdirSync } from 'node:fs';
import type { Design } from './design.ts';
import { thisSchema } from './this-schema.ts';
import { unguardedTwin } from './unguarded-twin.ts';

/** Reads the design that each file of a folder exports as `design`. */
export async function readAlternatives(folder: URL): Promise<readonly Design[]> {
  const files = readdirSync(folder).sort();
  const designs = await Promise.all(
    files.map(async (file) => {
      const { design }: { readonly design?: Design } = await import(new URL(file, folder).href);
      if (design === undefined)
        throw new Error(
          `${file} does not export "design". Export a Design, or move the file out of this folder.`,
        );
      return design;
    }),
  );
  return designs.sort((one, other) => (one.key < other.key ? -1 : 1));
}

/** The twin copies this schema, so it comes after it. */
export const DESIGNS: readonly Design[] = [
  thisSchema,
  unguardedTwin,
  ...(await readAlternatives(new URL('alternatives/', import.meta.url))),
];
