import { randomBytes } from 'node:crypto';
import type { Client } from 'pg';
import { withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { foldAll } from './folding.ts';
import { createFilledTree, createTree, loadFiles, stageFiles } from './generated-tree.ts';
import { atMost, callTime, compare, inTurns, secondsOf, settle, single } from './measure.ts';

const DIRECTORIES = 1_000;
const DELTAS = 200_000;
const PENDING = 100_000;
const PAGE = 200;
/** Number of pending deltas while a page is read. */
const PAGE_PENDING = [0, 1_000, 20_000];

const label = () => `-${randomBytes(4).toString('hex')}`;

/** The rate of folding deltas. */
export const fold: Comparison = (context) =>
  withDatabase(context.server, async ({ client }) => {
    const tree = await createTree(client, DIRECTORIES);
    await stageFiles(client, tree, DELTAS);
    const { rate } = await inTurns(context.rounds, {
      async rate() {
        await loadFiles(client, label());
        await settle(client);
        return DELTAS / (await secondsOf(() => foldAll(client)));
      },
    });
    const target = { bound: 'at least', value: 50_000, of: 'here' } as const;
    context.report(
      single(`fold ${DELTAS} deltas of ${DIRECTORIES} directories at depth 5`, '/s', rate, target),
    );
  });

const DIRECTORY_TOTALS = 'select * from filestore.directory_totals($1)';
const BARE_SUM =
  'select sum(size_delta), sum(file_delta), sum(dir_delta), count(*) from filestore.rollup_deltas';

/** Reading exact totals with many pending deltas, against only summing these deltas. */
export const totals: Comparison = (context) =>
  withDatabase(context.server, async ({ client }) => {
    const tree = await createFilledTree(client, DIRECTORIES, PENDING);
    await loadFiles(client, label());
    await client.query('vacuum analyze');
    const read = (text: string, values: unknown[]) => () => callTime(client, text, values, context.seconds);
    const times = await inTurns(context.rounds, {
      root: read(DIRECTORY_TOTALS, [tree.rootId]),
      middle: read(DIRECTORY_TOTALS, [tree.topId]),
      leaf: read(DIRECTORY_TOTALS, [tree.beforeFirst + 1]),
      sum: read(BARE_SUM, []),
    });
    const of = (which: string) => `totals of ${which} against a bare sum, ${PENDING} deltas pending`;
    context.report(
      compare(of('the root'), 'ms', times.root, times.sum, atMost(2)),
      compare(of('a directory in the middle'), 'ms', times.middle, times.sum),
      compare(of('a directory of files'), 'ms', times.leaf, times.sum),
    );
    await foldAll(client);
  });

/** The totals of a page of directories in one call, against one call per directory and against the view. */
export const page: Comparison = (context) =>
  withDatabase(context.server, async ({ client }) => {
    const tree = await createFilledTree(client, DIRECTORIES, DIRECTORIES);
    const ids = Array.from({ length: PAGE }, (_, index) => tree.beforeFirst + 1 + index);
    const read = (text: string) => () => callTime(client, text, [ids], context.seconds);
    for (const pending of PAGE_PENDING) {
      if (pending > 0) await stageFiles(client, tree, pending);
      if (pending > 0) await loadFiles(client, label());
      const times = await inTurns(context.rounds, {
        list: read('select * from filestore.list_totals($1)'),
        calls: () => secondsOf(() => callForEach(client, ids)).then((time) => time * 1000),
        view: read('select * from filestore.view_filestore_directories where id = any($1)'),
      });
      const what = `list_totals() of ${PAGE} directories, ${pending} deltas of ${DIRECTORIES} directories pending,`;
      context.report(
        compare(`${what} against directory_totals() of each`, 'ms', times.list, times.calls, atMost(0.2)),
        compare(`${what} against the view`, 'ms', times.list, times.view),
      );
      await foldAll(client);
    }
  });

async function callForEach(client: Client, ids: readonly number[]): Promise<void> {
  for (const id of ids) await client.query({ name: 'one', text: DIRECTORY_TOTALS, values: [id] });
}
