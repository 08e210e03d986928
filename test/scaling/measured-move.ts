import type pg from 'pg';
import { withClient } from '../../src/testing/with-client.ts';
import { type FilledMount, fillMount } from '../support/rows/fill-mount.ts';
import { findLost } from '../support/rows/find-lost.ts';
import { until } from '../support/until.ts';
import { compareMounts } from './compare-servers.ts';
import { moveByCommand } from './move-by-command.ts';
import { moveByHand } from './move-by-hand.ts';
import { startWriters, type WriterRecord, type Writers } from './move-writers.ts';
import { startRegularWork } from './regular-work.ts';
import type { StepOptions } from './run-steps.ts';
import { startTwoServers, type TwoServers } from './two-servers.ts';

export interface MoveOptions extends Pick<StepOptions, 'kills' | 'onStep'> {
  readonly nodes: number;
  readonly writers: number;
  /** The command, which is run again until it succeeds, or the recipe of docs/scaling.md. Default: the command. */
  readonly by?: 'command' | 'hand';
  /** Take the first attempt back, after the mount was closed or while it is copied. */
  readonly takeBackFirst?: boolean;
  readonly fsync?: 'on' | 'off';
}

export interface MoveResult {
  /** Empty when nothing is lost, doubled or refused for long. */
  readonly faults: readonly string[];
  readonly rows: Readonly<Record<string, number>>;
  readonly writtenToSource: number;
  readonly writtenToTarget: number;
  readonly refused: number;
  /** How long the writers of the mount were without an answer at the cut-over, sorted. */
  readonly stallsMs: readonly number[];
  /** The longest time between two answers of one server to a writer of the mount: what a writer waits anyway. */
  readonly longestGapMs: number;
  /** The longest wait of a writer of another mount on the source, during the whole move. */
  readonly longestGapOfOthersMs: number;
}

const WRITERS_OF_OTHERS = 2;
/** Answers of each server that the writers get before the next step. */
const ANSWERS_PER_WRITER = 20;

/** Moves a mount from one server to another, while writers are at work. */
export async function measureMove(options: MoveOptions): Promise<MoveResult> {
  const servers = await startTwoServers({ fsync: options.fsync ?? 'off' });
  try {
    return await moveBetween(servers, options);
  } finally {
    await servers.stop();
  }
}

async function moveBetween(servers: TwoServers, options: MoveOptions): Promise<MoveResult> {
  const { source, target } = servers;
  const [mount, other] = await withClient(source.url, async (client) => [
    await fillMount(client, 'media', options.nodes, options.writers),
    await fillMount(client, 'other', 1000, WRITERS_OF_OTHERS),
  ]);
  const neighbour = await withClient(target.url, (client) => fillMount(client, 'neighbour', 100, 1));
  const urls = { source: source.url, target: target.url };
  const writers = startWriters({ mount, neighbour, urls, follow: true });
  const others = startWriters({ mount: other, urls, follow: false });
  const upkeep = startRegularWork(servers);
  let records: readonly WriterRecord[] = [];
  let recordsOfOthers: readonly WriterRecord[] = [];
  let isFrozen = false;
  let found: Awaited<ReturnType<typeof compareOnBoth>> = { faults: [], rows: {} };
  try {
    await untilAnswered(writers, 'source', options.writers);
    const move = (options.by === 'hand' ? moveByHand : moveByCommand)(servers, options);
    if (options.takeBackFirst) await move.attemptAndTakeBack();
    // A tombstone that the target purges later would count as missing.
    await upkeep.stopOn('target');
    await move.toTheEndOfWrites();
    await untilAnswered(writers, 'target', options.writers);
    records = await writers.stop();
    const closed = await stateOf(source.url, mount);
    found = await compareOnBoth(servers, mount, records);
    isFrozen = closed === (await stateOf(source.url, mount));
    await move.end();
  } finally {
    await writers.stop();
    recordsOfOthers = await others.stop();
    await upkeep.stop();
  }
  return {
    faults: [
      ...found.faults,
      ...(isFrozen ? [] : ['the source was written to after it was closed']),
      ...[...records, ...recordsOfOthers].flatMap((record) => record.faults.slice(0, 3)),
      ...upkeep.faults(),
      ...records
        .filter(({ stallMs }) => stallMs === undefined)
        .map(() => 'a writer never reached the target'),
      ...(await problemsOfBoth(servers, mount)),
    ],
    rows: found.rows,
    writtenToSource: sum(records.map(({ written }) => written.source)),
    writtenToTarget: sum(records.map(({ written }) => written.target)),
    refused: sum(records.map(({ refused }) => refused)),
    stallsMs: records.flatMap(({ stallMs }) => stallMs ?? []).sort((a, b) => a - b),
    longestGapMs: Math.max(...records.map(({ longestGapMs }) => longestGapMs)),
    longestGapOfOthersMs: Math.max(...recordsOfOthers.map(({ longestGapMs }) => longestGapMs)),
  };
}

async function untilAnswered(writers: Writers, server: 'source' | 'target', count: number): Promise<void> {
  const goal = writers.writtenTo(server) + count * ANSWERS_PER_WRITER;
  await until(() => writers.writtenTo(server) >= goal);
}

async function compareOnBoth(servers: TwoServers, mount: FilledMount, records: readonly WriterRecord[]) {
  return withClient(servers.source.url, (source) =>
    withClient(servers.target.url, async (target) => {
      const { faults, rows } = await compareMounts(source, target, mount);
      return { faults: [...faults, ...(await findLost(target, records))], rows };
    }),
  );
}

/** What changes with every write. */
async function stateOf(url: string, { id }: FilledMount): Promise<string> {
  return withClient(url, async (client) => {
    const { rows } = await client.query(
      `select (select row(count(*), sum(version)) from filestore.nodes where backend_mount_id = $1)::text
           || (select row(count(*), max(completed_at)) from filestore.journal_entries where backend_mount_id = $1)::text as state`,
      [id],
    );
    return rows[0].state;
  });
}

async function problemsOfBoth(
  { source, target }: TwoServers,
  mount: FilledMount,
): Promise<readonly string[]> {
  const problems = async (client: pg.Client) =>
    (await client.query('select * from filestore.check_integrity()')).rows.map((row) => JSON.stringify(row));
  const onSource = await withClient(source.url, async (client) => {
    const { rows } = await client.query(
      `select (select count(*) from filestore.nodes where backend_mount_id = $1)
            + (select count(*) from filestore.snapshots where backend_mount_id = $1)
            + (select count(*) from filestore.journal_entries where backend_mount_id = $1) as rows`,
      [mount.id],
    );
    const left = Number(rows[0].rows);
    return [...(await problems(client)), ...(left === 0 ? [] : [`${left} rows are left on the source`])];
  });
  return [...onSource, ...(await withClient(target.url, problems))];
}

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
