/**
 * Only for the recording of `npm run mutate`: before a test's database is dropped, notes in the file that the variable
 * names, if it is there, which functions of the schema it has called.
 */
import { appendFileSync, existsSync } from 'node:fs';
import pg from 'pg';
import { inject } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { withClient } from '../../src/testing/with-client.ts';

type Query = (...parameters: unknown[]) => Promise<unknown>;

const file = process.env.FILESTORE_RECORDED_CALLS;
const prototype = pg.Client.prototype as unknown as { query: Query & { isRecording?: boolean } };
const query = prototype.query;

if (file !== undefined && query.isRecording !== true) {
  prototype.query = function recordAndQuery(this: unknown, ...parameters) {
    const dropped = /^drop database if exists (\w+) with/.exec(String(parameters[0]))?.[1];
    if (dropped === undefined || !existsSync(file)) return query.apply(this, parameters);
    return record(file, dropped).then(() => query.apply(this, parameters));
  };
  prototype.query.isRecording = true;
}

async function record(into: string, database: string): Promise<void> {
  await withClient(databaseUrl(inject('superuserUrl'), database), async (client) => {
    const { rows } = await client.query<{ name: string }>(
      "select distinct funcname as name from pg_stat_user_functions where schemaname = 'filestore'",
    );
    appendFileSync(into, rows.map(({ name }) => `${name}\n`).join(''));
  });
}
