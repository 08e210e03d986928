import type { QueryResult } from 'pg';
import { describe, expect, test } from 'vitest';
import { listedTreeForFile } from '../support/rows/listed-tree.ts';
import { createDirectory, createNode, one } from '../support/rows/nodes.ts';
import { refusal } from '../support/rows/refusals.ts';

const { database, reader, mount, key, listed } = listedTreeForFile();

interface Row {
  readonly id: string;
  readonly cursor: string;
}

describe('list_nodes with a cursor', () => {
  test.each([1, 2, 3])(
    'pages of %i lose and repeat no node while nodes are created, deleted and restored',
    async (size) => {
      const top = await createDirectory(database(), mount(), mount().rootId, `pages-${size}`);
      const files: string[] = [];
      for (const name of ['b', 'c', 'd', 'e', 'f'])
        files.push(await createNode(database(), mount(), top, name));
      const seen: string[] = [];
      let cursor: string | null = null;
      for (let turn = 0; ; turn += 1) {
        const { rows }: QueryResult<Row> = await reader().query(
          `select (l.node).id, l.cursor from filestore.list_nodes($1, $2, after_cursor => $3, page_size => $4,
           states => '{active,deleted}') l`,
          [key(), `pages-${size}`, cursor, size],
        );
        if (rows.length === 0) break;
        seen.push(...rows.map(({ id }) => id));
        cursor = rows.at(-1)?.cursor ?? null;
        await createNode(database(), mount(), top, `a${turn}`);
        await database().query(
          "update filestore.nodes set state = case when live then 'deleted' else 'active' end where id = $1",
          [files[(turn * 3) % files.length]],
        );
      }
      expect(seen).toEqual(files);
    },
  );

  test('refuses a cursor of another order, direction, directory or mount, and what is no cursor', async () => {
    const cursorOf = async (args: string) =>
      (await reader().query(`select cursor from filestore.list_nodes(${args}, page_size => 1)`)).rows[0]
        .cursor;
    const list = (args: string, cursor: string) =>
      reader().query(`select from filestore.list_nodes(${args}, after_cursor => $1)`, [cursor]);
    const [byPath, bySize] = [
      await cursorOf(listed('a/b', '')),
      await cursorOf(listed('', "order_by => 'size'")),
    ];
    const { other } = await one(
      database(),
      'select mount_key as other from filestore.backend_mounts where id <> $1 order by id limit 1',
      [mount().id],
    );
    for (const [args, cursor] of [
      [listed('a/b', 'descending => true'), byPath],
      [listed('a/b', ''), await cursorOf(listed('a/b', 'descending => true'))],
      [listed('', "order_by => 'size', descending => true"), bySize],
      [listed('a', "order_by => 'size'"), bySize],
      [`'${other}', order_by => 'size'`, bySize],
      [`'${other}', 'a/b'`, byPath],
      [listed('', ''), bySize],
      [listed('', "order_by => 'size'"), byPath],
      [listed('z', ''), byPath],
      [listed('', ''), 'x'],
      [listed('', ''), ''],
      [listed('', "order_by => 'size'"), 'size:1:x'],
      [listed('', "order_by => 'change'"), 'change:1:2024-01-01'],
      [listed('', "order_by => 'change'"), 'change:1:9223372036854775807'],
    ] as const) {
      await expect(list(args, cursor), `${args} ${cursor}`).rejects.toMatchObject({
        ...refusal('FS422', 'after_cursor'),
        constraint: 'cursor_check',
      });
    }
    // Cursors of 1.2.0 have no mark.
    for (const [args, cursor] of [
      [listed('a/b', ''), byPath],
      [listed('', "order_by => 'size'"), bySize],
    ] as const) {
      const old = cursor.replace(/[.]\w{8}/, '');
      expect(old).not.toBe(cursor);
      expect((await list(args, old)).rows).toEqual((await list(args, cursor)).rows);
      expect((await list(args, old)).rows.length).toBeGreaterThan(0);
    }
    // In one directory, the orders of path and name are one.
    await list(
      listed('a/b', "max_depth => 1, order_by => 'name'"),
      await cursorOf(listed('a/b', 'max_depth => 1')),
    );
    // No file is larger.
    expect((await list(listed('', "order_by => 'size'"), 'size:1:9999999999999999999')).rows).toEqual([]);
  });
});
