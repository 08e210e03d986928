import type { Client } from 'pg';
import { describeEnding, type Ending, isSameEnding, type Recorder, type WrittenNode } from './recorder.ts';

/** A kind of problem, and how often it was found. */
export interface Check {
  readonly name: string;
  readonly count: number;
  readonly examples: readonly string[];
}

const CHUNK = 5000;

/** Compares the database with the acknowledged changes. Call it when all workers have stopped. */
export async function checkEverything(admin: Client, recorder: Recorder): Promise<readonly Check[]> {
  await untilNone(admin, `select count(*)::integer as n from filestore.expire_commands('0')`);
  const checks = [
    ...(await checkIntegrity(admin, 'after the run')),
    ...(await checkJournal(admin, recorder)),
    ...(await checkNodes(admin, recorder)),
    ...(await checkScans(admin)),
  ];
  await untilNone(admin, 'select filestore.fold_rollups() as n');
  await untilNone(admin, `select filestore.purge_deleted('0') as n`);
  await untilNone(admin, 'select filestore.fold_rollups() as n');
  return [
    ...checks,
    ...(await checkIntegrity(admin, 'after fold and purge')),
    ...(await checkRemains(admin)),
  ];
}

async function checkIntegrity(admin: Client, when: string): Promise<readonly Check[]> {
  const { rows } = await admin.query<{ problem: string; node_id: string; detail: string }>(
    'select problem, node_id, detail from filestore.check_integrity()',
  );
  const problems = [...new Set(rows.map((row) => row.problem))];
  if (problems.length === 0) return [verdict(`check_integrity ${when}`, [])];
  return problems.map((problem) =>
    verdict(
      `check_integrity ${when}: ${problem}`,
      rows.filter((row) => row.problem === problem).map((row) => `node ${row.node_id}: ${row.detail}`),
    ),
  );
}

async function checkJournal(admin: Client, recorder: Recorder): Promise<readonly Check[]> {
  const { endings, failures, claims, contradictions, prunedBefore } = recorder;
  const found = await readJournal(admin, [
    ...new Set([
      ...endings.keys(),
      ...failures,
      ...[...claims.values()].flatMap((all) => all.map(({ entryId }) => entryId)),
    ]),
  ]);
  const mayBePruned = (id: string) => {
    const ending = endings.get(id);
    return ending !== undefined && ending.completedAt < prunedBefore;
  };
  const vanished = [...endings.keys()].filter((id) => !found.has(id) && !mayBePruned(id));
  const changed = [...endings].flatMap(([id, ending]) => {
    const now = found.get(id);
    if (now === undefined || isSameEnding(now, ending)) return [];
    return [`entry ${id}: ${describeEnding(ending)} became ${describeEnding(now)}`];
  });
  const unwritten = [...failures].filter((id) => !mayBePruned(id) && found.get(id)?.status !== 'failed');
  const { rows: open } = await admin.query<{ id: string }>(
    'select id from filestore.journal_entries where completed_at is null',
  );
  const statusOf = (id: string) => found.get(id)?.status ?? endings.get(id)?.status ?? 'failed';
  const doubled = [...claims].flatMap(([key, all]) => {
    const sorted = [...all].sort((one, other) => Number(one.entryId) - Number(other.entryId));
    const unasked = sorted.slice(1).filter(
      // After the earlier entry was pruned, the key counts as new.
      (claim, index) =>
        !claim.retryFailed && !sorted.slice(0, index + 1).every(({ entryId }) => mayBePruned(entryId)),
    );
    const run = sorted.filter(({ entryId }) => !mayBePruned(entryId) && statusOf(entryId) !== 'failed');
    return unasked.length > 0 || run.length > 1
      ? [`${key}: ${sorted.map(({ entryId }) => `${entryId} ${statusOf(entryId)}`).join(', ')}`]
      : [];
  });
  return [
    ...(await checkLists(admin, recorder)),
    verdict('acknowledged commands that vanished', vanished),
    verdict('acknowledged commands that changed', changed),
    verdict('commands that ended in two ways', contradictions),
    verdict('failures without a failed entry', unwritten),
    verdict(
      'commands still open after expiry',
      open.map(({ id }) => id),
    ),
    verdict('idempotency keys run twice', doubled),
  ];
}

/** Checks that the lists of its command and of its nodes contain each entry, in the right place. */
async function checkLists(admin: Client, { endings, works }: Recorder): Promise<readonly Check[]> {
  const unlisted = await missing(
    admin,
    `select j.id || ' ' || j.command as id
     from unnest($1::bigint[]) as e (id)
     join filestore.journal_entries j on j.id = e.id
     where not exists (
       select from filestore.list_commands(j.backend_mount_id, j.command, j.status, j.id + 1, 1) c where c.id = j.id
     )`,
    sample([...endings.keys()]).map((id) => [id]),
  );
  const unfound = await missing(
    admin,
    `select w.entry_id || ' of node ' || w.node_id as id
     from unnest($1::bigint[], $2::bigint[]) as w (entry_id, node_id)
     join filestore.journal_entries j on j.id = w.entry_id
     where not exists (select from filestore.node_commands(w.node_id, w.entry_id + 1, 1) c where c.id = w.entry_id)`,
    sample([...works].flatMap(([entryId, nodeIds]) => nodeIds.map((nodeId) => [entryId, nodeId] as const))),
  );
  return [
    verdict('commands that list_commands does not list', unlisted),
    verdict('commands that node_commands does not list', unfound),
  ];
}

/** A thousand items, spread evenly. */
function sample<T>(all: readonly T[]): readonly T[] {
  const step = Math.max(1, Math.ceil(all.length / 1000));
  return all.filter((_, index) => index % step === 0);
}

async function readJournal(admin: Client, ids: readonly string[]): Promise<ReadonlyMap<string, Ending>> {
  const found = new Map<string, Ending>();
  for (let start = 0; start < ids.length; start += CHUNK) {
    const { rows } = await admin.query<Ending & { id: string }>(
      `select id, status, result, error, completed_at as "completedAt"
       from filestore.journal_entries where id = any($1)`,
      [ids.slice(start, start + CHUNK)],
    );
    for (const { id, ...ending } of rows) found.set(id, ending);
  }
  return found;
}

async function checkNodes(admin: Client, { created, written }: Recorder): Promise<readonly Check[]> {
  const lost = await missing(
    admin,
    `select c.id
     from unnest($1::bigint[]) as c (id)
     where not exists (select from filestore.nodes n where n.id = c.id)
       and not exists (select from torture.purged p where p.node_id = c.id)`,
    [...created].map((id) => [id]),
  );
  const spoiled = await missing(
    admin,
    `select w.id || ' version ' || w.version || ' "' || w.path || '"' as id
     from unnest($1::bigint[], $2::integer[], $3::text[], $4::bigint[], $5::boolean[]) as w (id, version, path, size_bytes, live)
     where not exists (
         select from filestore.view_filestore_node_versions v
         where v.id = w.id and v.version = w.version
           and (v.path, v.size_bytes, v.live) = (w.path, w.size_bytes, w.live)
       )
       -- check_integrity finds versions that are missing after the horizon.
       and not exists (
         select from filestore.nodes n
         where n.id = w.id and w.version < (select min(v.version) from filestore.view_filestore_node_versions v where v.id = n.id)
       )
       and not exists (select from torture.purged p where p.node_id = w.id)`,
    [...written.values()].map((node: WrittenNode) => [
      node.id,
      node.version,
      node.path,
      node.size_bytes,
      node.live,
    ]),
  );
  return [
    verdict('acknowledged creates that are lost', lost),
    verdict('acknowledged versions that vanished or changed', spoiled),
  ];
}

/** Checks that scans leave nothing behind, whichever of their calls were killed. */
async function checkScans(admin: Client): Promise<readonly Check[]> {
  await admin.query('select filestore.cancel_scan(id) from filestore.scans where ended_at is null');
  await admin.query('select filestore.expire_scans()');
  const { rows: named } = await admin.query<{ path: string }>(
    "select path from filestore.nodes where live and name ~ '^(~+[0-9a-f]+|[!-~])$'",
  );
  const { rows: left } = await admin.query<{ scan_id: string }>(
    `select scan_id from filestore.scan_entries union select scan_id from filestore.scan_changes
     union select scan_id from filestore.scan_directories union select scan_id from filestore.scan_sightings`,
  );
  return [
    verdict(
      'nodes with a temporary name of a scan',
      named.map(({ path }) => path),
    ),
    verdict(
      'scans that left rows behind',
      left.map(({ scan_id: id }) => id),
    ),
  ];
}

/** The ids that a query over columns of values returns as wrong. */
async function missing(admin: Client, sql: string, rows: readonly (readonly unknown[])[]): Promise<string[]> {
  const bad: string[] = [];
  for (let start = 0; start < rows.length; start += CHUNK) {
    const chunk = rows.slice(start, start + CHUNK);
    const columns = (chunk[0] ?? []).map((_, column) => chunk.map((row) => row[column]));
    const result = await admin.query<{ id: string }>(sql, columns);
    bad.push(...result.rows.map(({ id }) => id));
  }
  return bad;
}

/** Checks that no deltas and tombstones are left, and that the folded totals are the sums of the nodes. */
async function checkRemains(admin: Client): Promise<readonly Check[]> {
  const ids = async (sql: string) => (await admin.query<{ id: string }>(sql)).rows.map(({ id }) => id);
  return [
    verdict('deltas left after the fold', await ids('select id from filestore.rollup_deltas')),
    verdict('tombstones left after the purge', await ids('select id from filestore.nodes where not live')),
    verdict(
      'folded totals that differ from the recomputed ones',
      await ids(
        `select d.id
         from filestore.nodes d
         join filestore.rollups r on r.node_id = d.id
         left join filestore.nodes n on n.backend_mount_id = d.backend_mount_id
           and n.parent_id is not null and n.live
           and (d.path = '' or (n.path >= d.path || '/' and n.path < d.path || '0'))
         group by d.id, r.size_bytes, r.file_count, r.dir_count, r.child_count
         having (r.size_bytes, r.file_count, r.dir_count, r.child_count) is distinct from
           (coalesce(sum(n.size_bytes), 0)::bigint, count(n.id) filter (where n.kind = 'file'),
            count(n.id) filter (where n.kind = 'directory'), count(n.id) filter (where n.parent_id = d.id))`,
      ),
    ),
  ];
}

async function untilNone(admin: Client, sql: string): Promise<void> {
  for (;;) {
    const { rows } = await admin.query<{ n: number }>(sql);
    if (rows[0]?.n === 0) return;
  }
}

function verdict(name: string, found: readonly string[]): Check {
  return { name, count: found.length, examples: found.slice(0, 5) };
}
