import { readChecks } from '../../../src/migrate/data-check-text.ts';
import { type Gate, judge } from '../gate.ts';
import { migrationsOf, type Sources } from '../sources.ts';

export const checks: Gate<Sources> = {
  name: 'checks',
  proves: 'each check of a migration is one select with a message, above the first statement',
  check: (sources) =>
    judge(
      migrationsOf(sources).flatMap(({ text, placeOf }) =>
        readChecks(text).problems.map(({ line, what, remedy }) => ({ ...placeOf(line), what, remedy })),
      ),
    ),
};
