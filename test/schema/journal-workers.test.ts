import type { Client } from 'pg';
import { beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { levelsForFile } from '../support/roles/roles.ts';
import { begin, emptyJournal, finish } from '../support/rows/journal-entries.ts';
import { createMount, createNode } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const database = databaseForFile();
const connectAs = levelsForFile(database);

let service: Client;
let other: Client;
let file: string;
let entry: string;

beforeAll(async () => {
  [service, other] = [await connectAs('service'), await connectAs('service')];
});

beforeEach(async () => {
  for (const client of [service, other]) await client.query('rollback');
  await emptyJournal(database());
  const mount = await createMount(database());
  file = await createNode(database(), mount, mount.rootId, 'f');
  entry = (await begin(service)).id;
});

const change = (client: Client = service) =>
  client.query('update filestore.nodes set size_bytes = size_bytes + 1 where id = $1', [file]);

test('of two workers that set filestore.journal_entry_id by hand, the second waits, and is refused', async () => {
  const name = (client: Client) =>
    client.query("select set_config('filestore.journal_entry_id', $1 || '/' || pg_current_xact_id(), true)", [
      entry,
    ]);
  const mount = await createMount(database());
  const another = await createNode(database(), mount, mount.rootId, 'another');
  await service.query('begin');
  await name(service);
  await change();
  await other.query('begin');
  await name(other);
  const second = await sendAndBlock(
    other,
    'update filestore.nodes set size_bytes = size_bytes + 1 where id = $1',
    [another],
  );
  expect(second.waits).toBe(true);
  await finish(service, entry, 'succeeded');
  await service.query('commit');
  expect(await second.outcome).toMatchObject({
    ok: false,
    error: { code: 'FS422', constraint: 'journal_entry_id_check' },
  });
  await other.query('rollback');
});

describe.each([
  ['begin_work', 'select filestore.begin_work($1)'],
  ['start_command', 'select filestore.start_command($1)'],
  ['finish_command', "select filestore.finish_command($1, 'succeeded', '{}')"],
])('%s', (_, call) => {
  test.each(['0', '-1', '9223372036854775807', null])(
    'is refused for entry %s, which does not exist',
    async (id) => {
      await expect(service.query(call, [id])).rejects.toMatchObject({
        code: 'FS404',
        constraint: 'journal_entries_missing',
        hint: expect.stringMatching(/\w{3}/),
      });
    },
  );

  test.each(['succeeded', 'failed', 'canceled'])(
    'is refused for an entry that another service ended as %s',
    async (status) => {
      const { id } = await begin(other);
      await finish(other, id, status, null, status === 'failed' ? {} : null);
      await expect(service.query(call, [id])).rejects.toMatchObject({
        ...refusal('FS409', `${id} (move) is ${status}`),
        constraint: 'journal_entries_ended',
      });
    },
  );
});

test('a service frees the key of its crashed worker', async () => {
  const { id } = await begin(service, { key: 'nightly' });
  expect((await begin(service, { key: 'nightly', retryFailed: true })).is_new).toBe(false);
  const { rows } = await service.query(
    "select id, status from filestore.expire_commands('0') where id = $1",
    [id],
  );
  expect(rows).toEqual([{ id, status: 'failed' }]);
  expect((await begin(service, { key: 'nightly', retryFailed: true })).is_new).toBe(true);
});
