import { expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();

// A new state or kind needs this. Some servers refuse it while a function takes an array of the domain.
test('each domain takes another check', async () => {
  const checks = await database().query<{ domain: string; name: string; definition: string }>(
    `select c.contypid::regtype::text as domain, quote_ident(c.conname) as name, pg_get_constraintdef(c.oid) as definition
     from pg_constraint c
     where c.connamespace = 'filestore'::regnamespace and c.contypid <> 0`,
  );
  expect(checks.length).toBeGreaterThan(3);
  for (const { domain, name, definition } of checks) {
    await database().query(`alter domain ${domain} drop constraint ${name}`);
    await database().query(`alter domain ${domain} add constraint ${name} ${definition}`);
  }
});
