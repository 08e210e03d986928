import { beforeAll, describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { ENTRIES, loadLargeJournal } from '../support/rows/large-tables.ts';
import { createMountsWithIds } from '../support/rows/nodes.ts';

const database = databaseForFile();

/** A page of 20 and the unfinished entries: far fewer rows than a walk to old entries reads. */
const FEW = 300;

beforeAll(async () => {
  await createMountsWithIds(database(), 1);
  await loadLargeJournal(database());
}, 120_000);

interface Reads {
  /** Rows and index entries of the journal that the statement read. */
  readonly entries: number;
  readonly indexes: readonly string[];
}

// A brin index counts ten entries for each block of the table.
const COUNTERS = `
  select c.relname as name, c.relkind as kind, pg_stat_get_xact_numscans(c.oid)::integer as scans,
         (case a.amname when 'brin' then 0 else pg_stat_get_xact_tuples_returned(c.oid) end
          + case c.relkind when 'r' then pg_stat_get_xact_tuples_fetched(c.oid) else 0 end)::integer as entries
  from pg_class c
  left join pg_am a on a.oid = c.relam
  where c.oid = 'filestore.journal_entries'::regclass
     or c.oid in (select indexrelid from pg_index where indrelid = 'filestore.journal_entries'::regclass)
  order by 1`;

/** Runs a statement six times, so that a generic plan would be in use, and returns what the last run read. */
async function readsOf(statement: string): Promise<Reads> {
  const client = await database().connect();
  try {
    for (let run = 1; run < 6; run += 1) await client.query(statement);
    await client.query('begin');
    const { rows: before } = await client.query(COUNTERS);
    await client.query(statement);
    const { rows: after } = await client.query(COUNTERS);
    await client.query('rollback');
    const read = after.map(({ name, kind, scans, entries }, n) => ({
      name,
      isScanned: kind === 'i' && scans > before[n].scans,
      entries: entries - before[n].entries,
    }));
    return {
      entries: read.reduce((sum, { entries }) => sum + entries, 0),
      indexes: read.filter(({ isScanned }) => isScanned).map(({ name }) => name),
    };
  } finally {
    await client.end();
  }
}

const ALL = 'select * from filestore.';

test.each([
  ['the newest of all', 'list_commands(page_size => 20)', 'journal_entries_pkey'],
  ['a frequent command', "list_commands(command => 'write', page_size => 20)", 'journal_entries_command_idx'],
  ['a rare command', "list_commands(command => 'scan', page_size => 20)", 'journal_entries_command_idx'],
  [
    'a command of the past',
    "list_commands(command => 'upload', page_size => 20)",
    'journal_entries_command_idx',
  ],
  [
    'a command that does not exist',
    "list_commands(command => 'x', page_size => 20)",
    'journal_entries_command_idx',
  ],
  [
    'the last page of a command',
    "list_commands(command => 'upload', before_id => 30, page_size => 20)",
    'journal_entries_command_idx',
  ],
  ['a frequent mount', 'list_commands(1, page_size => 20)', 'journal_entries_mount_idx'],
  ['a rare mount', 'list_commands(3, page_size => 20)', 'journal_entries_mount_idx'],
  ['a mount of the past', 'list_commands(5, page_size => 20)', 'journal_entries_mount_idx'],
  ['a mount without entries', 'list_commands(4, page_size => 20)', 'journal_entries_mount_idx'],
  ['the status succeeded', "list_commands(status => 'succeeded', page_size => 20)", 'journal_entries_pkey'],
  ['the status failed', "list_commands(status => 'failed', page_size => 20)", 'journal_entries_status_idx'],
  [
    'the rare status canceled',
    "list_commands(status => 'canceled', page_size => 20)",
    'journal_entries_status_idx',
  ],
  ['the status queued', "list_commands(status => 'queued', page_size => 20)", 'journal_entries_status_idx'],
  [
    'a rare mount and a frequent command',
    "list_commands(3, 'upload', page_size => 20)",
    'journal_entries_mount_idx',
  ],
  [
    'a frequent mount and a rare command',
    "list_commands(1, 'scan', page_size => 20)",
    'journal_entries_command_idx',
  ],
  ['a node', 'node_commands(500)', 'journal_entries_nodes_idx'],
  ['a node without entries', 'node_commands(999999)', 'journal_entries_nodes_idx'],
  ['the next page of a node', `node_commands(500, ${ENTRIES / 2})`, 'journal_entries_nodes_idx'],
])('%s is listed by reading few entries', async (_, call, index) => {
  const reads = await readsOf(`${ALL}${call}`);
  expect(reads.indexes).toContain(index);
  expect(reads.entries).toBeLessThan(FEW);
});

test.each([
  ['an entry', `${ALL}journal_entries where id = 5`, 'journal_entries_pkey'],
  [
    'the commands of one correlation',
    `${ALL}journal_entries where correlation_id = 'correlation-500'`,
    'journal_entries_correlation_idx',
  ],
  [
    'the unfinished commands',
    `${ALL}journal_entries where status in ('queued', 'running') order by id`,
    'journal_entries_status_idx',
  ],
  [
    'a failed entry that holds no key',
    'select filestore.begin_command(command, mount_id => backend_mount_id, idempotency_key => idempotency_key) from filestore.journal_entries where id = 411',
    'journal_entries_attempts_idx',
  ],
  ['a new key', `${ALL}begin_command('write', '{}', null, null, 'new')`, 'journal_entries_idempotency_key'],
  ['what has expired', `${ALL}expire_commands('1 hour', 5)`, 'journal_entries_status_idx'],
])('%s is found by an index', async (_, statement, index) => {
  const reads = await readsOf(statement);
  expect(reads.indexes).toContain(index);
  expect(reads.entries).toBeLessThan(FEW);
});

test('entries of one hour are found by reading only the blocks of that hour', async () => {
  const { entries, indexes } = await readsOf(
    `${ALL}journal_entries where created_at between now() - interval '3 hours' and now() - interval '2 hours'`,
  );
  expect(indexes).toContain('journal_entries_created_idx');
  expect(entries).toBeLessThan(ENTRIES / 10);
});

describe('with entries since the last vacuum', () => {
  test.each([
    ["list_commands(command => 'scan')", 'journal_entries_command_idx'],
    ['list_commands(3)', 'journal_entries_mount_idx'],
    ['node_commands(500)', 'journal_entries_nodes_idx'],
  ])('%s reads few of them', async (call, index) => {
    await database().query(
      `select filestore.finish_command((b.entry).id, 'succeeded', affected_node_ids => array[g])
       from generate_series(1000000, 1000200) g
       cross join lateral filestore.begin_command('write', mount_id => 1, primary_node_id => g) b`,
    );
    const reads = await readsOf(`${ALL}${call}`);
    expect(reads.indexes).toContain(index);
    // Also entries that were running before and are still in the index.
    expect(reads.entries).toBeLessThan(5 * FEW);
  });
});
