import { readChecks } from '../../../src/migrate/data-checks.ts';
import { migrationsOf, type Sources } from '../../sources/sources.ts';
import { type Gate, judge } from '../gate.ts';

export const dataChecks: Gate<Sources> = {
  name: 'data checks',
  proves: 'each data check of a migration is one select with a message, above the first statement',
  evaluate: (sources) =>
    judge(
      migrationsOf(sources).flatMap(({ text, placeOf }) =>
        readChecks(text).problems.map(({ line, what, remedy }) => ({ ...placeOf(line), what, remedy })),
      ),
    ),
};
