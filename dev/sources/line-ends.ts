import type { Problem } from './problem.ts';
import type { SqlSource } from './sources.ts';

/**
 * Git commits LF, so a hash of text with CR LF would be valid on one machine only. An include that ends in CR is a
 * comment for graphile-migrate.
 */
export function lineEndProblems({ text, placeOf }: SqlSource): readonly Problem[] {
  const line = text.split('\n').findIndex((written) => written.endsWith('\r')) + 1;
  if (line === 0) return [];
  return [{ ...placeOf(line), what: 'ends in CR LF', remedy: 'Save the file with LF line ends.' }];
}
