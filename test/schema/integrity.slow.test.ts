import { describe } from 'vitest';
import { catalogueForEachTest, runBreaks } from './by-hand/breaking.ts';
import { BREAKS } from './by-hand/breaks.ts';

const catalogue = catalogueForEachTest();

describe('what is broken while every trigger and key is disabled by name is named and healed too', () => {
  runBreaks(
    BREAKS.filter(({ off }) => off === undefined).map((each) => ({ ...each, off: 'every' })),
    catalogue,
  );
});
