import { expect, inject, test } from 'vitest';
import { committedMigrations } from '../support/packages/committed-files.ts';
import { runRound } from './round.ts';

test('twenty processes at once all succeed, and each migration is applied by one of them', async () => {
  const result = await runRound({
    adminUrl: inject('superuserUrl'),
    database: `${inject('template')}_round`,
    processes: 20,
  });
  expect(result).toMatchObject({ faults: [], applied: committedMigrations().length });
}, 180_000);
