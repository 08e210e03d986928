import type { Client } from 'pg';
import { expectPlaces, type Scope } from '../disk/expected.ts';
import { listBackend } from './backend.ts';
import type { Command } from './journal.ts';
import { type Choice, type Operation, type Rows, statement } from './model-operation.ts';
import {
  CONTENT_COLUMNS,
  type Content,
  isLive,
  isLiveDirectory,
  type Node,
  Refused,
  type Version,
} from './node.ts';
import type { Model } from './plain-model.ts';
import { knownNodes, noteWrites, type RunningScan, resultFaults, stepFaults } from './scanned.ts';

/** Begins a scan and records what the backend has. Nothing else changes, also when the differences are listed. */
export function callBeginScan(choice: Choice): Operation {
  const { model, random } = choice;
  const mount = random.pick(model.mounts);
  const directories = [...model.nodes.values()].filter(
    (node) => node.mountId === mount.id && isLiveDirectory(node),
  );
  const root = directories.find(({ path }) => path === '') as Node;
  const top = random.chance(0.5) ? root : random.pick(directories);
  const pairByContent = mount.kind === 's3' && random.chance(0.7);
  const scope: Scope = { path: top.path, isRecursive: random.chance(0.7), pairByContent };
  const entries = listBackend(choice, mount, scope);
  const start = top.path === '' ? 0 : top.path.length + 1;
  const below = entries.map((entry) => ({ ...entry, path: entry.path.slice(start) }));
  const listsDifferences = random.chance(0.3);
  const isUndisturbed = random.chance(0.6);
  const known = model.nodes;
  return {
    name: 'begin_scan',
    text: `begin_scan('${mount.key}', '${top.path}', ${scope.isRecursive}, ${pairByContent}) ${JSON.stringify(below)}`,
    run: async (sql) => {
      const { rows } = await sql.query('select id from filestore.begin_scan($1, $2, $3, $4)', [
        mount.key,
        top.path,
        scope.isRecursive,
        pairByContent,
      ]);
      await sql.query('select filestore.record_entries($1, $2)', [rows[0].id, JSON.stringify(below)]);
      if (listsDifferences) await sql.query('select from filestore.scan_differences($1)', [rows[0].id]);
      return rows;
    },
    expect: ([row]) => {
      const expected = expectPlaces(knownNodes(model, mount), entries, scope);
      model.scan = {
        id: Number(row?.id),
        ...{ mount, top, scope, entries, expected, isUndisturbed },
        before: known,
        last: known,
        written: new Set(),
        commands: [],
      };
    },
  };
}

/** One call of apply_scan. The database chooses the order of changes, so the model takes the versions over. */
export function callApplyScan(choice: Choice): Operation {
  const { model, random } = choice;
  const scan = model.scan as RunningScan;
  const max = random.pick([1, 2, 3, 10, 10_000]);
  return {
    name: 'apply_scan',
    text: `select filestore.apply_scan(${scan.id}, 1, ${max})`,
    isFirstWrite: true,
    run: async (sql) => {
      const { rows } = await sql.query('select * from filestore.apply_scan($1, 1, $2)', [scan.id, max]);
      const commands = await sql.query(
        'select id, affected_node_ids from filestore.journal_entries where id = any ($1) order by id',
        [rows[0].journal_entry_ids],
      );
      return [{ ...rows[0], commands: commands.rows }, ...(await readVersions(sql, model, scan))];
    },
    expect: ([row, ...versions]) => {
      const top = model.nodes.get(scan.top.id);
      if (top === undefined || !isLive(top) || top.path !== scan.top.path) throw new Refused('FS409');
      noteWrites(scan, model.nodes);
      const old = model.nodes;
      const commands = takeCommandsOver(model, scan, row?.commands);
      model.takeOver(adoptedNodes(model, versions, scan));
      scan.last = model.nodes;
      const faults = stepFaults(scan, old, model.nodes);
      if (row?.state === 'finished') {
        if (scan.written.size === 0) faults.push(...resultFaults(scan, model.nodes));
        const last = commands.at(-1);
        last?.command.nodes.push(...last.affected);
        if (last !== undefined) last.command.status = 'succeeded';
        model.scan = null;
      }
      if (faults.length > 0) throw new Error(faults.join('\n'));
    },
  };
}

export function callCancelScan({ model }: Choice): Operation {
  const scan = model.scan as RunningScan;
  return statement('cancel_scan', 'select state from filestore.cancel_scan($1)', [scan.id], ([row]) => {
    if (row?.state !== 'canceled') throw new Error(`the scan is ${row?.state}`);
    for (const command of model.commands) if (scan.commands.includes(command.id)) command.status = 'canceled';
    model.scan = null;
  });
}

/** A scan belongs to a command, which its first step begins. */
function takeCommandsOver(model: Model, scan: RunningScan, rows: Rows) {
  return rows.map((row) => {
    const id = Number(row.id);
    const affected = (row.affected_node_ids as readonly string[]).map(Number);
    const known = model.commands.find((command) => command.id === id);
    if (known !== undefined) return { command: known, affected };
    const command: Command = {
      id,
      name: 'scan',
      mountId: scan.mount.id,
      status: 'running',
      nodes: [scan.top.id],
    };
    model.commands.push(command);
    scan.commands.push(id);
    return { command, affected };
  });
}

/** The last version of each node that the model knows, and those after it. */
async function readVersions(sql: Client, model: Model, scan: RunningScan): Promise<Rows> {
  const known = [...model.nodes.values()].filter(({ mountId }) => mountId === scan.mount.id);
  const { rows } = await sql.query(
    `select v.id, v.backend_mount_id, v.parent_id, v.name, v.path, v.kind, v.state, v.version, v.deleted_at::text,
       v.superseded_by_journal_id, ${CONTENT_COLUMNS.map((column) => `v.${column}::text`).join(', ')}
     from filestore.view_filestore_node_versions v
     left join unnest($2::bigint[], $3::integer[]) k (id, version) on k.id = v.id
     where v.backend_mount_id = $1 and v.version >= coalesce(k.version, 1)
     order by v.id, v.version`,
    [scan.mount.id, known.map(({ id }) => id), known.map(({ version }) => version)],
  );
  return rows;
}

function adoptedNodes(model: Model, rows: Rows, scan: RunningScan): readonly Node[] {
  const byId = new Map<number, Rows[number][]>();
  for (const row of rows) byId.set(Number(row.id), [...(byId.get(Number(row.id)) ?? []), row]);
  return [...byId].flatMap(([id, all]) => {
    const known = model.nodes.get(id);
    if (known !== undefined && all.length === 1) return [];
    const versions = all.map((row, index) =>
      known !== undefined && index === 0 ? known : versionOf(model, row),
    );
    const added = all.slice(0, -1).map((row, index) => {
      const journalEntry = Number(row.superseded_by_journal_id);
      if (!scan.commands.includes(journalEntry)) throw new Error(`node ${id} was changed by ${journalEntry}`);
      return { version: versions[index] as Version, journalEntry };
    });
    const past = [...(known?.past ?? []), ...added];
    return [{ ...(versions.at(-1) as Version), past, statement: 0 }];
  });
}

function versionOf(model: Model, row: Rows[number]): Version {
  const { name, path, kind, state, version } = row;
  return {
    ...{ name, path, kind, state, version },
    id: Number(row.id),
    mountId: Number(row.backend_mount_id),
    parentId: row.parent_id === null ? null : Number(row.parent_id),
    deletion: row.deleted_at === null ? null : model.deletionAt(row.deleted_at),
    content: Object.fromEntries(CONTENT_COLUMNS.map((column) => [column, row[column]])) as Content,
  };
}
