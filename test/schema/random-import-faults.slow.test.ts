import { expect, test } from 'vitest';
import { mulberry32 } from '../support/mulberry32.ts';
import {
  CANCELED,
  type Damage,
  ENTRY_DAMAGES,
  FAILED,
  FIRST_MOMENT,
  NODE_DAMAGES,
  PLACE_DAMAGES,
  SUCCEEDED,
  VERSION_DAMAGES,
} from '../support/rows/damaged-rows.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';
import { OldCatalogue, type OldNode } from '../support/rows/old-catalogue.ts';
import { type Fault, importDatabaseForEachTest, key, type Row, stage } from '../support/rows/staged.ts';
import {
  COLUMNS,
  expectNodes,
  expectVersions,
  stageNodes,
  stageVersions,
} from '../support/rows/staged-catalogue.ts';

const database = importDatabaseForEachTest();
const list = COLUMNS.map((name) => `n.${name}`).join(', ');

// A node without a version is listed with the default, and a version without a number with none.
const show = (rows: readonly (readonly [staged: string, row: Row, reason: string])[]) =>
  rows
    .map(([staged, { id = null, version }, reason]) =>
      [staged, id, staged === 'nodes' ? (version ?? 1) : version, reason].join(' '),
    )
    .sort();
const listed = async (tables: string) =>
  show(
    (await database().query<Fault & Row>(`select * from filestore.check_import('${key}', ${tables})`)).map(
      (fault) => [fault.staged, fault, fault.reason],
    ),
  );
const importRest = (tables: string) =>
  database().query(`call filestore.import_nodes('${key}', ${tables}, take_rest => true, batch => 7)`);
const problems = () => database().query('select * from filestore.check_integrity()');

/** A directory and a root that are on another mount. */
async function createElsewhere(): Promise<Readonly<Record<string, unknown>>> {
  const mount = await createMount(database(), 's3');
  return {
    elsewhere: await createNode(database(), mount, mount.rootId, 'd', 'directory'),
    'root elsewhere': mount.rootId,
  };
}

/** Damages a row, and puts ids in place of the words for nodes. */
function damage(row: Row, { change }: Damage, ids: Readonly<Record<string, unknown>>): Row {
  const damaged = { ...row, ...change };
  const word = damaged.parent_id === 'itself' ? row.id : ids[`${damaged.parent_id}`];
  return { ...damaged, ...(word === undefined ? {} : { parent_id: word }) };
}

test.each([
  ['paths', 11],
  ['parents', 13],
  ['parents', 14],
] as const)(
  'of damaged rows with %s, the dry run lists each with its reason, and the import takes all others (seed %i)',
  async (way, seed) => {
    const catalogue = new OldCatalogue(mulberry32(seed), { movesDirectories: way === 'parents' });
    for (let change = 0; change < 320; change += 1) catalogue.change();
    const expected: [staged: string, row: Row, reason: string][] = [];
    const refused = new Set<number>();
    const isLeaf = ({ id }: OldNode) => catalogue.nodes.every(({ now }) => now.parent !== id);
    const take = (damage: Damage) =>
      catalogue
        .shuffle(catalogue.nodes)
        .filter((node) => (catalogue.chance(0.1) && damage.isPlace !== true) || isLeaf(node))
        .find((node) => !refused.has(node.id) && damage.fits?.(node) !== false);
    const idOf = (kind: string, isLive: boolean) =>
      catalogue.nodes.find((node) => node.kind === kind && catalogue.isLive(node) === isLive)?.id;
    const [file, tombstone] = [idOf('file', true), idOf('directory', false)];
    const ids = { ...(await createElsewhere()), file, tombstone };
    // These two stay sound, for others to refer to.
    refused.add(file ?? 0).add(tombstone ?? 0);

    const nodes = new Map(stageNodes(catalogue, way).map((row) => [row.id, row]));
    for (const kind of catalogue.shuffle([...NODE_DAMAGES, ...PLACE_DAMAGES[way]])) {
      const node = take(kind);
      if (node === undefined) continue;
      const row = damage(nodes.get(node.id) ?? {}, kind, ids);
      nodes.set(node.id, row);
      refused.add(node.id);
      expected.push(['nodes', row, kind.reason]);
    }
    refused.delete(file ?? 0);
    refused.delete(tombstone ?? 0);
    for (let depth = 1; depth < 20; depth += 1) {
      for (const { id, now } of catalogue.nodes) {
        if (refused.has(id) || !refused.has(now.parent ?? 0)) continue;
        refused.add(id);
        expected.push(['nodes', nodes.get(id) ?? {}, 'import_parent_refused']);
      }
    }

    const versions = stageVersions(catalogue).map((row) => ({
      row,
      reason: refused.has(Number(row.id)) ? 'nodes_missing' : '',
    }));
    const damaged = new Set<unknown>();
    for (const kind of catalogue.shuffle(VERSION_DAMAGES)) {
      const chosen = catalogue
        .shuffle(versions)
        .find(({ row, reason }) => reason === '' && !damaged.has(row.id));
      if (chosen === undefined) break;
      const { id, version } = chosen.row;
      damaged.add(id);
      const isBeyond = Number(kind.change.version) > 2;
      for (const other of versions) {
        if (other.row.id === id && (isBeyond || Number(other.row.version) < Number(version)))
          other.reason = 'import_version_check';
      }
      chosen.row = damage(chosen.row, kind, ids);
      chosen.reason = kind.reason;
    }
    expected.push(
      ...versions
        .filter(({ reason }) => reason !== '')
        .map(({ row, reason }): [string, Row, string] => ['versions', row, reason]),
    );

    await stage(database(), 'nodes', [...nodes.values()]);
    await stage(
      database(),
      'versions',
      versions.map(({ row }) => row),
    );
    const tables = "'old.nodes', 'old.versions'";
    expect(await listed(tables)).toEqual(show(expected));
    await importRest(tables);
    const root = (
      await one(
        database(),
        'select n.parent_id from filestore.nodes n where n.depth = 1 and n.id between 10 and 9999 limit 1',
      )
    ).parent_id;
    expect(
      await database().query(
        `select ${list} from filestore.nodes n where n.id between 10 and 9999 order by n.id`,
      ),
    ).toEqual(expectNodes(catalogue, root).filter(({ id }) => !refused.has(Number(id))));
    const sound = new Set(
      versions.filter(({ reason }) => reason === '').map(({ row }) => `${row.id} ${row.version}`),
    );
    expect(
      await database().query(
        `select ${list}, n.valid_from, n.valid_to, n.superseded_by_journal_id from filestore.snapshots n where n.id between 10 and 9999 order by n.id, n.version`,
      ),
    ).toEqual(expectVersions(catalogue, root).filter(({ id, version }) => sound.has(`${id} ${version}`)));
    expect(await problems()).toEqual([]);
    expect(await listed(tables)).toEqual(show(expected));
    await importRest(tables);
    expect(
      await one(
        database(),
        'select nodes::int, versions::int, refused::int from filestore.imports order by id desc limit 1',
      ),
    ).toEqual({ nodes: 0, versions: 0, refused: expected.length });
  },
);

const MOMENT = '2025-01-02T03:04:05.678Z';
const ENTRY: Row = {
  ...{
    command: 'c',
    status: 'succeeded',
    created_at: MOMENT,
    started_at: MOMENT,
    completed_at: '2025-01-02T03:04:07.700Z',
  },
  ...{
    parameters: { a: 1 },
    result: null,
    error: null,
    idempotency_key: null,
    affected_node_ids: '{1,2}',
    duration_ms: null,
  },
  ...{ correlation_id: null, principal: null },
};

test('of damaged journal entries, the dry run lists each with its reason, and the import takes all others', async () => {
  const random = new OldCatalogue(mulberry32(21));
  const sound: readonly Row[] = [
    ENTRY,
    {
      ...ENTRY,
      created_at: FIRST_MOMENT,
      started_at: FIRST_MOMENT,
      completed_at: FIRST_MOMENT,
      duration_ms: 0,
    },
    { ...ENTRY, ...FAILED },
    { ...ENTRY, ...FAILED, started_at: null },
    { ...ENTRY, ...CANCELED, error: null },
    { ...ENTRY, ...SUCCEEDED, result: {}, duration_ms: 7 },
    // A key may come again with another command, and after failures.
    { ...ENTRY, ...FAILED, idempotency_key: 'k' },
    { ...ENTRY, ...CANCELED, idempotency_key: 'k' },
    { ...ENTRY, idempotency_key: 'k' },
    { ...ENTRY, command: 'd', idempotency_key: 'k' },
    { ...ENTRY, idempotency_key: 'other' },
  ].map((row, index) => ({ ...row, id: 1001 + index }));
  const damaged = ENTRY_DAMAGES.map((kind, index) => ({
    row: { ...ENTRY, id: 2001 + index, ...kind.change },
    reason: kind.reason,
  }));
  const twice = { ...ENTRY, idempotency_key: 'twice' };
  const pairs = [
    { row: { ...twice, id: 3001 }, reason: 'journal_entries_idempotency_key' },
    { row: { ...twice, id: 3002 }, reason: 'journal_entries_idempotency_key' },
    { row: { ...ENTRY, id: 3003 }, reason: 'journal_entries_pkey' },
    { row: { ...ENTRY, id: 3003, command: 'd' }, reason: 'journal_entries_pkey' },
    // The other entry with this key is refused for itself.
    {
      row: { ...ENTRY, id: 3004, idempotency_key: 'other', duration_ms: -1 },
      reason: 'journal_entries_duration_check',
    },
  ];
  const faults = [...damaged, ...pairs];
  const expected = faults.map(({ row, reason }): [string, Row, string] => [
    'entries',
    { id: row.id },
    reason,
  ]);
  await stage(database(), 'entries', random.shuffle([...sound, ...faults.map(({ row }) => row)]));
  const tables = "null, null, 'old.entries'";
  expect(await listed(tables)).toEqual(show(expected));
  await importRest(tables);
  const read = () =>
    database().query(
      `select id::int, command, status, created_at, started_at, completed_at, duration_ms::int, idempotency_key, parameters, result, error
       from filestore.journal_entries where id > 1000 order by id`,
    );
  const date = (at: unknown) => (at === null ? null : new Date(`${at}`));
  const taken = sound.map((row) => ({
    ...{ id: row.id, command: row.command, status: row.status, created_at: date(row.created_at) },
    ...{ started_at: date(row.started_at), completed_at: date(row.completed_at) },
    duration_ms: row.duration_ms ?? (row.started_at === null ? null : 2022),
    ...{
      idempotency_key: row.idempotency_key,
      parameters: row.parameters,
      result: row.result,
      error: row.error,
    },
  }));
  expect(await read()).toEqual(taken);
  expect(await problems()).toEqual([]);
  expect(await listed(tables)).toEqual(show(expected));
  await importRest(tables);
  expect(await read()).toEqual(taken);
});
