import type { Client } from 'pg';
import { withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { foldAll } from './folding.ts';
import { createFilledTree, type Tree } from './generated-tree.ts';
import { compare, seconds, settle, single } from './measure.ts';
import { changeTwin, createTwin } from './twin.ts';

const BATCH = 10_000;

/** Rare operations on a whole tree: check, delete, restore, delete in batches, and purge. */
export const trees: Comparison = ({ server, nodes, rounds, report }) =>
  withDatabase(server, async ({ client }) => {
    const directories = Math.ceil(nodes / 100);
    const tree = await createFilledTree(client, directories, nodes - directories);
    await createTwin(client);
    const timed = async (work: () => Promise<unknown>) => {
      await settle(client);
      return seconds(work);
    };
    const against = async (what: string, here: () => Promise<unknown>, twin: () => Promise<unknown>) => {
      report(compare(`${what}, ${nodes} nodes`, 's', [await timed(here)], [await timed(twin)]));
    };
    const check = async (when: string) => {
      const times: number[] = [];
      for (let round = 0; round < rounds; round += 1) times.push(await timed(() => checkIntegrity(client)));
      report(single(`check_integrity() ${when}, ${nodes} nodes, no row returned`, 's', times));
    };

    await check('of a new tree');
    await against(
      'delete_node(recursive)',
      () => client.query('select filestore.delete_node($1, null, true)', [tree.topId]),
      () => changeTwin(client, nodes + 1, DELETE_TWIN, [tree.mountId, tree.topPath]),
    );
    await foldAll(client);
    await client.query('vacuum analyze');
    await against(
      'restore_node(with_tree)',
      () => client.query('select filestore.restore_node($1, null, true)', [tree.topId]),
      () => changeTwin(client, nodes + 1, RESTORE_TWIN, [tree.mountId, tree.topPath]),
    );
    await foldAll(client);
    await client.query('vacuum analyze');
    await against(
      `delete_batch of ${BATCH} until nothing is left`,
      () => deleteInBatches(client, tree),
      () => changeTwin(client, nodes + 1, DELETE_TWIN, [tree.mountId, tree.topPath]),
    );
    await foldAll(client);
    await check('after all that');
    await against(
      `purge_deleted of ${BATCH} until nothing is left`,
      () => untilZero(client, `select filestore.purge_deleted('0 s', ${BATCH}) as done`),
      () => changeTwin(client, nodes + 1, 'delete from twin.nodes where deleted_at is not null'),
    );
  });

async function checkIntegrity(client: Client): Promise<void> {
  const { rows } = await client.query('select * from filestore.check_integrity() limit 3');
  if (rows.length > 0) throw new Error(`check_integrity() found: ${JSON.stringify(rows)}`);
}

async function deleteInBatches(client: Client, tree: Tree): Promise<void> {
  const { rows } = await client.query('select statement_timestamp()::text as moment');
  await untilZero(
    client,
    `select filestore.delete_batch(${tree.topId}, ${BATCH}, '${rows[0].moment}') as done`,
  );
}

/** Each call is a separate transaction. */
export async function untilZero(client: Client, text: string): Promise<void> {
  for (;;) {
    const { rows } = await client.query(text);
    if (rows[0].done === 0) return;
  }
}

const BELOW = "backend_mount_id = $1 and (path = $2 or (path >= $2 || '/' and path < $2 || '0'))";

export const DELETE_TWIN = `
  update twin.nodes
  set state       = 'deleted',
      deleted_at  = statement_timestamp(),
      live        = false,
      parent_live = null,
      version     = version + 1,
      updated_at  = statement_timestamp()
  where ${BELOW} and live`;

export const RESTORE_TWIN = `
  update twin.nodes
  set state       = 'active',
      deleted_at  = null,
      live        = true,
      parent_live = true,
      version     = version + 1,
      updated_at  = statement_timestamp()
  where ${BELOW} and deleted_at is not null`;
