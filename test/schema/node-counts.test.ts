import { describe, expect, test } from 'vitest';
import { CHANGED, CONDITIONS, listedTreeForFile, PATHS } from '../support/rows/listed-tree.ts';
import { createNode } from '../support/rows/nodes.ts';

const { database, reader, mount, expectedIds, listed } = listedTreeForFile();

describe('count_nodes', () => {
  const count = async (args: string) =>
    (
      await reader().query(
        `${CHANGED} select nodes::integer, is_estimate from filestore.count_nodes(${args})`,
      )
    ).rows[0];

  test.each(CONDITIONS)('with [%s] counts the nodes of the list', async (args, condition) => {
    for (const path of PATHS) {
      const { length } = await expectedIds(path, condition, 'id', 'asc');
      expect(await count(listed(path, args)), path).toEqual({ nodes: length, is_estimate: false });
    }
  });

  test('of all nodes, of a kind, or in one directory is exact with any max_nodes, also while deltas are pending', async () => {
    await createNode(database(), mount(), mount().rootId, 'pending');
    for (const [args, condition] of [
      ['', 'live'],
      ["kinds => '{file}'", "live and kind = 'file'"],
      ["kinds => '{directory}'", "live and kind = 'directory'"],
      ['max_depth => 1', 'live and relative_depth = 1'],
    ] as const) {
      const { length } = await expectedIds('', condition, 'id', 'asc');
      expect(await count(listed('', args, 'max_nodes => 1')), args).toEqual({
        nodes: length,
        is_estimate: false,
      });
    }
  });

  test('says when it is an estimate, by the share of the nodes that were read', async () => {
    const { length: all } = await expectedIds('', 'live', 'path', 'asc');
    const first = await database().query(
      `select n.kind from filestore.nodes n where n.backend_mount_id = $1 and n.live and n.parent_id is not null
       order by n.path limit 11`,
      [mount().id],
    );
    const files = first.filter(({ kind }) => kind === 'file').length;
    expect(await count(listed('', "kinds => '{file}', min_size => 0", 'max_nodes => 10'))).toEqual({
      nodes: Math.round((files * all) / 11),
      is_estimate: true,
    });
  });

  test('of too many tombstones is refused', async () => {
    await expect(count(listed('', "states => '{deleted}', max_nodes => 3"))).rejects.toMatchObject({
      code: 'FS422',
      constraint: 'nodes_range_check',
      hint: expect.not.stringContaining('order_by'),
    });
  });
});
