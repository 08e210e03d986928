import type { Client } from 'pg';

/** Upkeep that works in many transactions, in a world of `test/orders`. */
export interface UpkeepLoop {
  /** What a superuser runs in the world first, each text in its own transaction. */
  readonly setup?: readonly string[];
  /** Calls to the end. Called again after a crash. */
  readonly call: (client: Client) => Promise<void>;
}

/** Repeats a query until its first value is 0, false or `finished`. */
const repeat = (text: string) => async (client: Client) => {
  for (;;) {
    const { rows } = await client.query<{ left: unknown }>(`select ${text} as left`);
    if ([0, false, 'finished'].includes(rows[0]?.left as never)) return;
  }
};

const call = (text: string) => async (client: Client) => {
  await client.query(`call filestore.${text}`);
};

/** Applies a scan. If the server has lost its entries, it scans again, as the refusal says. */
async function applyScan(client: Client): Promise<void> {
  const running =
    "(select max(s.id) from filestore.scans s join filestore.backend_mounts m on m.id = s.backend_mount_id where m.mount_key = 'm')";
  try {
    await repeat(`(select state from filestore.apply_scan(${running}, 1, 1))`)(client);
  } catch (error) {
    if ((error as { constraint?: string }).constraint !== 'scans_lost') throw error;
    await client.query(`select filestore.cancel_scan(${running})`);
    await client.query("select filestore.begin_scan('m', 'b')");
    await client.query(`select filestore.record_entries(${running}, '${ENTRIES}')`);
    await applyScan(client);
  }
}

/** What the scan of the world has found. */
const ENTRIES =
  '[{"path": "f", "size_bytes": 6}, {"path": "new", "size_bytes": 7}, {"path": "d/deep", "size_bytes": 8}]';

const STAGED = `
select filestore.create_mount('{"mount_key": "imported", "backend_kind": "local", "root_path": "/imported"}');
create schema old;
create table old.nodes (id bigint, path text, kind text, size_bytes bigint, version integer, updated_at timestamptz, deleted_at timestamptz);
insert into old.nodes values
  (501, 'd', 'directory', null, 1, '2025-01-01Z', null),
  (502, 'd/f', 'file', 30, 3, '2025-01-04Z', null),
  (503, 'd/g', 'file', 40, 1, '2025-01-02Z', null),
  (504, 'd/gone', 'file', 50, 2, '2025-01-03Z', '2025-01-03Z'),
  (505, 'h', 'file', 60, 1, '2025-01-02Z', null);
create table old.versions (id bigint, version integer, size_bytes bigint, updated_at timestamptz);
insert into old.versions values (502, 1, 10, '2025-01-01Z'), (502, 2, 20, '2025-01-02Z'), (504, 1, 50, '2025-01-02Z');
create table old.entries (id bigint, command text, status text, primary_node_id bigint, created_at timestamptz, started_at timestamptz, completed_at timestamptz);
insert into old.entries
select id, 'upload', 'succeeded', 502, moment, moment, moment
from (values (601, '2025-01-01Z'::timestamptz), (602, '2025-01-02Z'), (603, '2025-01-03Z')) e (id, moment);`;

const IMPORT = "import_nodes('imported', 'old.nodes', 'old.versions', 'old.entries', batch => 2)";

/** Two names are exchanged, so that nodes have to give up theirs first. */
const CHANGED = `
update old.nodes set path = case path when 'd/f' then 'd/g' else 'd/f' end, version = version + 1, updated_at = '2025-02-01Z'
where path in ('d/f', 'd/g');
update old.nodes set path = 'i', size_bytes = 61, version = 2, updated_at = '2025-02-01Z' where path = 'h';
insert into old.versions values (502, 3, 30, '2025-01-04Z'), (503, 1, 40, '2025-01-02Z'), (505, 1, 60, '2025-01-02Z');
insert into old.nodes values (506, 'h', 'directory', null, 1, '2025-02-01Z', null), (507, 'h/j', 'file', 70, 1, '2025-02-01Z', null);`;

export const UPKEEP_LOOPS: Readonly<Record<string, UpkeepLoop>> = {
  apply_scan: { call: applyScan },
  import_nodes: { setup: [STAGED], call: call(IMPORT) },
  'import_nodes again': { setup: [STAGED, `call filestore.${IMPORT}`, CHANGED], call: call(IMPORT) },
  erase_mount: { call: call("erase_mount('z', 2)") },
  backfill: {
    call: call(`backfill('nodes', 'shade', '''shade of '' || name', 5, '0')`),
  },
  fold_rollups: { call: repeat('filestore.fold_rollups(2)') },
  purge_deleted: { call: repeat("filestore.purge_deleted('0', 1)") },
  prune_history: { call: repeat("filestore.prune_history('0', 1, 1)") },
  prune_journal: { call: repeat("filestore.prune_journal('0', 1)") },
};
