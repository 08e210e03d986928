import { readDataChecks } from '../../../src/graphile/data-check-text.ts';
import { migrationsOf, type Sources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

export const dataChecks: Gate<Sources> = {
  name: 'data checks',
  proves: 'each data check of a migration is one select with a message, above the first statement',
  evaluate: (sources) =>
    judge(
      migrationsOf(sources).flatMap(({ text, placeOf }) =>
        readDataChecks(text).problems.map(({ line, what, remedy }) => ({ ...placeOf(line), what, remedy })),
      ),
    ),
};
