import { expect, test } from 'vitest';
import { mulberry32 } from '../support/mulberry32.ts';
import { one } from '../support/rows/nodes.ts';
import { PathTable } from '../support/rows/path-table.ts';
import { importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';

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

test.each([1, 2, 3])(
  'passes of a table of paths find the node of each row again, and change or restore only those that differ (seed %i)',
  async (seed) => {
    const table = new PathTable(mulberry32(seed));
    const ids = new Map<object, string | undefined>();
    for (let pass = 1; pass <= 5; pass += 1) {
      for (let change = 0; change < 20; change += 1) table.change();
      await stage(database(), 'nodes', table.staged());
      expect(
        await database().query(`select path, reason from filestore.check_import('${key}', 'old.nodes')`),
      ).toEqual([]);
      await database().query(`call filestore.import_nodes('${key}', 'old.nodes', batch => ${seed * 3})`);
      const nodes = table.import();
      const known = await database().query<Named & { id: string }>(NODES, [key]);
      expect(sorted(known.map(({ id: _, ...node }) => node))).toEqual(sorted(table.nodes));
      for (const [index, node] of sorted(table.nodes).entries()) {
        const { id } = sorted(known)[index] ?? {};
        expect(id).toBe(ids.get(node) ?? id);
        ids.set(node, id);
      }
      expect(
        await one(
          database(),
          'select nodes::int, versions::int from filestore.imports order by id desc limit 1',
        ),
      ).toEqual({ nodes, versions: 0 });
      expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
    }
  },
);
