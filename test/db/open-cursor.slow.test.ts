import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { closePool, getPool, withConnection } from '../../src/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();

beforeEach(() => {
  vi.stubEnv('FILESTORE_DATABASE_URL', database().url);
  vi.stubEnv('FILESTORE_PGPOOL_MAX', '1');
});
afterEach(async () => {
  await closePool();
  vi.unstubAllEnvs();
});

test('withConnection returns although a cursor is left open, and closes its connection', async () => {
  const cursor = { submit: () => undefined, handleError: () => undefined };
  const work = withConnection(async (client) => {
    client.query(cursor as never);
    return 'result';
  });
  expect(await work).toBe('result');
  expect(await getPool().query('select 1 as one')).toMatchObject({ rows: [{ one: 1 }] });
});
