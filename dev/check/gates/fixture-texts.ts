import type { Sources } from '../../sources/sources.ts';
import { staleFixtures } from '../../sources/stale-fixtures.ts';
import { type Gate, judge } from '../gate.ts';

export const fixtureTexts: Gate<Sources> = {
  name: 'fixtures',
  proves: 'every file of migrations/fixtures matches the last migration that includes it',
  evaluate: (sources) => judge(staleFixtures(sources)),
};
