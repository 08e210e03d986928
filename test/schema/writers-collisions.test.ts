import type { Client } from 'pg';
import { beforeEach, describe, expect, test } from 'vitest';
import { sendAndBlock } from '../support/databases/concurrency.ts';
import { databaseEmptiedAfterEachTest } from '../support/databases/test-database.ts';
import { createDirectory, createMount, createNode, type Mount, moveNode } from '../support/rows/nodes.ts';

const database = databaseEmptiedAfterEachTest();

let mount: Mount;
let first: Client;
let second: Client;
let third: Client;

beforeEach(async () => {
  mount = await createMount(database());
  [first, second, third] = [
    await database().connect(),
    await database().connect(),
    await database().connect(),
  ];
});

/** A change of a row that takes no lock on other rows. */
const TOUCH = `update filestore.nodes set metadata = metadata || '{"touched": true}' where id = $1`;
const DELETE = 'select id from filestore.delete_node($1)';

describe('the delete of a directory that is not empty', () => {
  test('does not deadlock with a transaction that writes several nodes in order of id', async () => {
    const elsewhere = await createDirectory(database(), mount, mount.rootId, 'elsewhere');
    const child = await createNode(database(), mount, elsewhere, 'child');
    const directory = await createDirectory(database(), mount, mount.rootId, 'younger than its child');
    await moveNode(database(), child, directory);

    await first.query('begin');
    await first.query('select filestore.lock_tree($1, false)', [mount.id]);
    await first.query(TOUCH, [child]);
    const removal = await sendAndBlock(second, DELETE, [directory]);
    const touch = await sendAndBlock(first, TOUCH, [directory]);
    expect(await touch.outcome).toMatchObject({ ok: true });
    await first.query('commit');
    expect(await removal.outcome).toMatchObject({ ok: false, error: { code: 'FS409' } });
  });

  test('does not deadlock with the delete of its parent and a move between them', async () => {
    const parent = await createDirectory(database(), mount, mount.rootId, 'parent');
    const directory = await createDirectory(database(), mount, parent, 'directory');
    const file = await createNode(database(), mount, directory, 'file');

    await first.query('begin');
    await first.query(TOUCH, [file]);
    const removal = await sendAndBlock(second, DELETE, [directory]);
    const removalOfParent = await sendAndBlock(third, DELETE, [parent]);
    const move = await sendAndBlock(first, 'select id from filestore.move_node($1, $2)', [file, parent]);
    expect(await move.outcome).toMatchObject({ ok: true });
    await first.query('commit');
    const codes = [await removal.outcome, await removalOfParent.outcome].map((outcome) =>
      outcome.ok ? 'done' : outcome.error.code,
    );
    expect(codes).not.toContain('40P01');
  });
});
