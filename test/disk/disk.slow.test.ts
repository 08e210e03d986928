import { expect, test } from 'vitest';
import { databaseForEachTest } from '../support/databases/test-database.ts';
import { followDisk } from './follow.ts';

const database = databaseForEachTest();

// Fixed seeds, so that a failure comes from the change under test. For new seeds, run `npm run disk`.
test.each([1, 2, 3, 4, 5, 6, 7, 8])(
  'the catalogue follows a disk that changes at random: seed %i',
  async (seed) => {
    const client = await database().connect();
    expect(await followDisk(client, { seed, rounds: 6, changes: 40, mountKey: 'disk' })).toEqual([]);
  },
);
