import { expect, test } from 'vitest';
import { mulberry32 } from '../support/mulberry32.ts';
import { one } from '../support/rows/nodes.ts';
import { OldCatalogue } from '../support/rows/old-catalogue.ts';
import { importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';
import {
  COLUMNS,
  compare,
  expectNodes,
  expectTotals,
  expectVersions,
  stageNodes,
  stageVersions,
} from '../support/rows/staged-catalogue.ts';

const database = importDatabaseForEachTest();
const TABLES = "'old.nodes', 'old.versions'";

const rootId = async () =>
  (
    await one(
      database(),
      'select n.id from filestore.nodes n join filestore.backend_mounts m on m.id = n.root_of_mount_id where m.mount_key = $1',
      [key],
    )
  ).id as string;

/** What the mount has, and the columns of its last import. */
async function read() {
  const list = COLUMNS.map((name) => `n.${name}`).join(', ');
  const totals = await database().query<{ path: string }>(
    `select d.path, d.size_bytes::int as size, d.file_count::int as files, d.dir_count::int as directories, d.child_count::int as children
     from filestore.view_filestore_directories d where d.mount_key = $1`,
    [key],
  );
  return {
    nodes: await database().query(
      `select ${list} from filestore.nodes n where n.parent_id is not null order by n.id`,
    ),
    versions: await database().query(
      `select ${list}, n.valid_from, n.valid_to, n.superseded_by_journal_id from filestore.snapshots n
       where n.parent_id is not null order by n.id, n.version`,
    ),
    totals: [...totals].sort((a, b) => compare(a.path, b.path)),
  };
}

const lastImport = () =>
  one(
    database(),
    'select nodes::int, versions::int, refused::int from filestore.imports order by id desc limit 1',
  );

/** Imports the catalogue as it is, and expects its rows in the mount, also after the same call again. */
async function pass(catalogue: OldCatalogue, way: 'paths' | 'parents', batch: number): Promise<void> {
  const expected = {
    nodes: expectNodes(catalogue, await rootId()),
    versions: expectVersions(catalogue, await rootId()),
    totals: expectTotals(catalogue),
  };
  await stage(database(), 'nodes', stageNodes(catalogue, way));
  await stage(database(), 'versions', stageVersions(catalogue));
  expect(
    await database().query(`select id, version, reason from filestore.check_import('${key}', ${TABLES})`),
  ).toEqual([]);
  const known = await read();
  const changed = expected.nodes.filter(
    ({ id, version }) => !known.nodes.some((node) => node.id === id && node.version === version),
  );
  await database().query(`call filestore.import_nodes('${key}', ${TABLES}, batch => ${batch})`);
  expect(await read()).toEqual(expected);
  expect(await lastImport()).toEqual({
    nodes: changed.length,
    versions: expected.versions.length - known.versions.length,
    refused: 0,
  });

  await database().query(`call filestore.import_nodes('${key}', ${TABLES})`);
  expect(await read()).toEqual(expected);
  expect(await lastImport()).toEqual({ nodes: 0, versions: 0, refused: 0 });
  expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
}

test.each([
  ['parents', 1],
  ['parents', 2],
  ['paths', 3],
] as const)('passes of a catalogue with %s end with all of its rows (seed %i)', async (way, seed) => {
  const catalogue = new OldCatalogue(mulberry32(seed), { movesDirectories: way === 'parents' });
  for (const changes of [30, 30, 20]) {
    for (let change = 0; change < changes; change += 1) catalogue.change();
    await pass(catalogue, way, 1 + seed * 2);
  }
});
