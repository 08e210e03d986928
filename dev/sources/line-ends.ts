import type { Problem } from './problem.ts';
import type { SqlSource } from './sources.ts';

/**
 * Git commits LF, so a hash of text with CR LF would be valid on one machine only. An include that ends in CR is a
 * comment for graphile-migrate. A single CR ends a comment for the server, but no line in an editor or a review. A
 * commit removes a byte order mark, and a watch sends it.
 */
export function lineEndProblems({ text, placeOf }: SqlSource): readonly Problem[] {
  const line = text.split('\n').findIndex((written) => /[\r\ufeff]/.test(written)) + 1;
  if (line === 0) return [];
  const remedy = 'Save the file with LF line ends, as UTF-8 without a byte order mark.';
  return [{ ...placeOf(line), what: 'has a carriage return (CR) or a byte order mark', remedy }];
}
