import type { Client, QueryResultRow } from 'pg';
import { journalDifferences } from './journal.ts';
import { CONTENT_COLUMNS, isLive, isLiveDirectory, isRoot, type Node, type Version } from './node.ts';
import type { Model } from './plain-model.ts';
import { totalsOf } from './writers.ts';

/** The content of a database or model as lines, which are easy to compare. */
type Lines = ReadonlyMap<string, string>;

/** Everything in one statement, since it runs after every step. */
const EVERYTHING = `
  select 'node' as what, n.id, n.deleted_at::text as moment, true as seamless,
    format('%s|%s|%s|%s|%s|%s|%s|%s', n.parent_id, n.parent_path, n.parent_live, n.directory_path, n.live,
           n.depth, n.version, n.path) as line
  from filestore.nodes n
  union all
  select 'versions of', v.id, null,
    array_agg(v.valid_from order by v.version)
      = array_prepend(min(v.valid_from),
                      array_agg(v.valid_to order by v.version) filter (where v.valid_to is not null))
      and coalesce(bool_and(v.valid_from < v.valid_to), true),
    string_agg(format('%s|%s|%s|%s|%s|%s|%s|%s|%s|%s', v.version, v.backend_mount_id, v.parent_id, v.name, v.path,
                      v.kind, v.state, v.live, v.deleted_at, v.superseded_by_journal_id)
               || format('|${CONTENT_COLUMNS.map(() => '%s').join('|')}',
                         ${CONTENT_COLUMNS.map((column) => `v.${column}`).join(', ')}),
               E'\\n' order by v.version)
  from filestore.view_filestore_node_versions v
  group by v.id
  union all
  select 'view of totals', d.id, null, true,
    format('%s bytes, %s files, %s directories, %s children', d.size_bytes, d.file_count, d.dir_count, d.child_count)
  from filestore.view_filestore_directories d
  union all
  select 'directory_totals', $1::bigint, null, true,
    format('%s bytes, %s files, %s directories, %s children', d.size_bytes, d.file_count, d.dir_count, d.child_count)
  from filestore.directory_totals($1) d
  union all
  select 'list_totals', d.node_id, null, true,
    format('%s bytes, %s files, %s directories, %s children', d.size_bytes, d.file_count, d.dir_count, d.child_count)
  from filestore.list_totals(array(select n.id from filestore.nodes n)) d
  union all
  select 'audit_rollups', a.node_id, null, true, to_jsonb(a)::text
  from filestore.backend_mounts m
  cross join lateral filestore.audit_rollups(m.mount_key) a`;

/** Returns the differences between the database and the model as text; empty when there are none. */
export async function differences(sql: Client, model: Model, directoryId: number): Promise<string> {
  const { rows } = await sql.query({ name: 'everything', text: EVERYTHING, values: [directoryId] });
  const nodes = [...model.nodes.values()];
  const chosen = model.nodes.get(directoryId);
  const unfit = rows.filter(({ what, id, moment }) => {
    const deletion = what === 'node' ? model.nodes.get(Number(id))?.deletion : null;
    return typeof deletion === 'number' && (moment === null || !model.learnMoment(deletion, moment));
  });
  const expected: Readonly<Record<string, Lines>> = {
    node: linesFor(nodes, (node) => nodeLine(model, node)),
    'versions of': linesFor(nodes, (node) => history(model, node)),
    'view of totals': linesFor(nodes.filter(isLiveDirectory), (node) => totalsLine(model, node)),
    directory_totals: linesFor(chosen?.kind === 'directory' ? [chosen] : [], (node) =>
      totalsLine(model, node),
    ),
    list_totals: linesFor(
      nodes.filter((node) => node.kind === 'directory'),
      (node) => totalsLine(model, node),
    ),
    audit_rollups: new Map(),
  };
  return [
    ...unfit.map(({ id, moment }) => `node ${id}: deleted at ${moment}, not together with whom it should`),
    ...rows.filter((row) => !row.seamless).map(({ id }) => `versions of ${id}: not without gap and overlap`),
    ...Object.entries(expected).flatMap(([what, lines]) =>
      difference(what, linesOf(rows.filter((row) => row.what === what)), lines),
    ),
  ].join('\n');
}

/** The live paths at a moment. Later, the history must still return them. */
export interface Checkpoint {
  readonly moment: string;
  readonly paths: Lines;
}

export async function checkpoint(sql: Client, model: Model): Promise<Checkpoint> {
  const { rows } = await sql.query('select clock_timestamp()::text as moment');
  const live = [...model.nodes.values()].filter(isLive);
  return { moment: rows[0].moment, paths: new Map(live.map((node) => [`${node.id}`, node.path])) };
}

/**
 * The problems that check_integrity() finds, and the differences of the journal's lists and of tree_at. Purged nodes have
 * no history, so they are left out, as are mounts whose history of that moment was pruned.
 */
export async function slowDifferences(
  sql: Client,
  model: Model,
  checkpoints: readonly Checkpoint[],
): Promise<string> {
  const { rows } = await sql.query('select * from filestore.check_integrity()');
  const found = rows.map((row) => `check_integrity: ${JSON.stringify(row)}`);
  found.push(...(await journalDifferences(sql, model)));
  for (const { moment, paths } of checkpoints) {
    const horizons = await sql.query('select id from filestore.backend_mounts where history_horizon > $1', [
      moment,
    ]);
    const pruned: readonly number[] = horizons.rows.map(({ id }) => Number(id));
    const then = await sql.query(
      `select t.id, t.path as line
       from filestore.backend_mounts m
       cross join lateral filestore.tree_at(m.mount_key, '', $1) t
       where m.id <> all ($2)`,
      [moment, pruned],
    );
    const kept = new Map(
      [...paths].filter(([id]) => {
        const mountId = model.nodes.get(Number(id))?.mountId;
        return mountId !== undefined && !pruned.includes(mountId);
      }),
    );
    found.push(...difference(`tree_at ${moment}: node`, linesOf(then.rows), kept));
  }
  return found.join('\n');
}

const linesOf = (rows: readonly QueryResultRow[]): Lines => new Map(rows.map(({ id, line }) => [id, line]));

function difference(what: string, found: Lines, expected: Lines): string[] {
  return [...new Set([...found.keys(), ...expected.keys()])]
    .filter((id) => found.get(id) !== expected.get(id))
    .map((id) => `${what} ${id}:\n  database ${inset(found.get(id))}\n  model    ${inset(expected.get(id))}`);
}

const inset = (line: string | undefined): string => line?.replaceAll('\n', '\n           ') ?? 'none';

const linesFor = (nodes: readonly Node[], lineOf: (node: Node) => string): Lines =>
  new Map(nodes.map((node) => [`${node.id}`, lineOf(node)]));

function totalsLine(model: Model, directory: Node): string {
  const { bytes, files, directories, children } = totalsOf(model, directory);
  return `${bytes} bytes, ${files} files, ${directories} directories, ${children} children`;
}

function nodeLine(model: Model, node: Node): string {
  const live = isLive(node);
  const parent = model.nodes.get(node.parentId ?? 0);
  // For a tombstone: the path that the parent had.
  const parentPath = live ? parent?.path : node.path.slice(0, -node.name.length).replace(/\/$/, '');
  const depth = isRoot(node) ? 0 : node.path.split('/').length;
  const parentLive = live && !isRoot(node) ? true : undefined;
  const directoryPath = node.kind === 'directory' ? node.path : undefined;
  return line([node.parentId, parentPath, parentLive, directoryPath, live, depth, node.version, node.path]);
}

function history(model: Model, node: Node): string {
  return [...node.past, { version: node, journalEntry: null }]
    .map(({ version, journalEntry }) => versionLine(model, version, journalEntry))
    .join('\n');
}

function versionLine(model: Model, version: Version, journalEntry: number | null): string {
  const { mountId, parentId, name, path, kind, state, deletion, content } = version;
  const moment = deletion === null ? null : model.momentOf(deletion);
  return line([
    ...[version.version, mountId, parentId, name, path, kind, state, isLive(version), moment, journalEntry],
    ...CONTENT_COLUMNS.map((column) => content[column]),
  ]);
}

/** Formatted like PostgreSQL's format('%s|%s'). */
const line = (values: readonly (string | number | boolean | null | undefined)[]): string =>
  values.map((value) => (value === true ? 't' : value === false ? 'f' : (value ?? ''))).join('|');
