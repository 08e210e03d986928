import { type Sources, writtenSources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

/**
 * graphile-migrate replaces these everywhere, even in strings and comments (dist/migration.js). It leaves others as they
 * are, so that the server refuses them.
 */
const RESERVED = /:DATABASE_(?:NAME|OWNER)\b/g;

export const placeholders: Gate<Sources> = {
  name: 'placeholders',
  proves: 'no migration has a placeholder',
  evaluate: (sources) =>
    judge(
      writtenSources(sources).flatMap(({ text, placeOf }) =>
        [...text.matchAll(RESERVED)].map((found) => ({
          ...placeOf(text.slice(0, found.index).split('\n').length),
          what: `has the placeholder ${found[0]}`,
          remedy:
            'Write the schema by its name, and ask the server for other names (current_database(), current_user).',
        })),
      ),
    ),
};
