import { expect, test } from 'vitest';
import { mulberry32 } from '../support/mulberry32.ts';
import { one } from '../support/rows/nodes.ts';
import { type PathNode, PathTable } from '../support/rows/path-table.ts';
import { createImportMount, importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

const NODES = `
  select n.id, n.path, n.kind, n.version, n.size_bytes::int as size, (extract(epoch from n.created_at) * 1000)::float8 as created,
         (extract(epoch from n.updated_at) * 1000)::float8 as updated, (extract(epoch from n.deleted_at) * 1000)::float8 as deleted,
         array(
           select jsonb_build_object('version', s.version, 'size', s.size_bytes, 'deleted', extract(epoch from s.deleted_at) * 1000)
           from filestore.snapshots s where s.id = n.id order by s.version
         ) as history
  from filestore.nodes n join filestore.backend_mounts m on m.id = n.backend_mount_id
  where m.mount_key = $1 and n.parent_id is not null`;

interface Named {
  readonly path: string;
  readonly created: number;
  readonly deleted: number | null;
}

/** The order of nodes: no two have all of these. */
const order = ({ path, created, deleted }: Named) => `${path} ${created} ${deleted}`;
const sorted = <Node extends Named>(nodes: readonly Node[]) =>
  [...nodes].sort((a, b) => (order(a) < order(b) ? -1 : 1));

/** Imports the table into a mount, and expects the nodes of the model there, each with the id that it had before. */
async function pass(
  mount: string,
  table: PathTable,
  ids: Map<PathNode, string>,
  batch: number,
): Promise<void> {
  await stage(database(), 'nodes', table.staged(ids));
  expect(
    await database().query(`select path, reason from filestore.check_import('${mount}', 'old.nodes')`),
  ).toEqual([]);
  await database().query(`call filestore.import_nodes('${mount}', 'old.nodes', batch => ${batch})`);
  const nodes = table.import();
  const known = sorted(await database().query<Named & { id: string }>(NODES, [mount]));
  expect(known.map(({ id: _, ...node }) => node)).toEqual(sorted(table.nodes));
  for (const [index, node] of sorted(table.nodes).entries()) {
    const id = known[index]?.id ?? '';
    expect(id).toBe(ids.get(node) ?? id);
    ids.set(node, id);
  }
  expect(
    await one(database(), 'select nodes::int, versions::int from filestore.imports order by id desc limit 1'),
  ).toEqual({ nodes, versions: 0 });
}

test.each([1, 2])(
  'passes of two tables with the same paths find the node of each row again, in the mount of the table (seed %i)',
  async (seed) => {
    await createImportMount(database(), 'twin');
    // The same changes, some of them later in the other mount.
    const mounts = [key, 'twin'].map((mount) => ({
      mount,
      table: new PathTable(mulberry32(seed)),
      ids: new Map<PathNode, string>(),
    }));
    for (let round = 1; round <= 4; round += 1) {
      for (const { mount, table, ids } of mounts) {
        for (let change = 0; change < 20; change += 1) table.change();
        await pass(mount, table, ids, seed * 3);
      }
      expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    }
  },
);
