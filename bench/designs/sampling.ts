import pg, { type Client } from 'pg';
import type { Statement } from '../load.ts';
import { figuresInTurns, median } from '../measure.ts';
import type { Design, Place, Query } from './design.ts';
import type { MeasurementStore, Operation } from './measurement-store.ts';
import type { StagedTree } from './staged-tree.ts';

/** What a group of measurements works with. */
export interface Scene {
  readonly client: Client;
  readonly url: string;
  readonly tree: StagedTree;
  readonly designs: readonly Design[];
  readonly store: MeasurementStore;
  readonly rounds: number;
  /** Of one measurement under load. */
  readonly seconds: number;
  /** Runs a statement on several connections at once, for "seconds" of the scene by default; returns how often a second. */
  readonly load: (statement: Statement, connections: number, seconds?: number) => Promise<number>;
  readonly say: (text: string) => void;
  /** Files that were deleted after the load. */
  readonly deleted: readonly Place[];
  /** A moment after the load and before any change, as text. */
  readonly loadedAt: string;
}

/** Many short turns: whatever else the machine does meets all designs. */
const TURNS_OF_A_ROUND = 10;
const TURN_SECONDS = 0.03;
/** A slow statement has fewer turns, but at least one in each round. */
const MOST_SECONDS_OF_A_ROUND = 0.5;
const CALLS = 200;
/** After so many calls the server has settled on a plan. */
const WARM_UP = { calls: 7, seconds: 5 } as const;

export function run(client: Client, { text, values }: Query) {
  return client.query({ name: nameOf(text), text, values: [...values] });
}

/** One prepared statement for each text. Names are cut at 63 bytes. */
function nameOf(text: string): string {
  let hash = 5381n;
  for (let index = 0; index < text.length; index += 1) {
    hash = (hash * 33n + BigInt(text.charCodeAt(index))) & 0xffff_ffff_ffff_ffffn;
  }
  return `s${hash.toString(36)}`;
}

/** Milliseconds of each call of a turn, at least one, the queries one after the other and again. */
async function sample(client: Client, queries: readonly Query[]): Promise<number[]> {
  const times: number[] = [];
  const end = performance.now() + TURN_SECONDS * 1000;
  while (times.length === 0 || performance.now() < end) {
    const query = queries[times.length % queries.length] as Query;
    const startedAt = performance.now();
    await run(client, query);
    times.push(performance.now() - startedAt);
  }
  return times;
}

async function warmUp(client: Client, queries: readonly Query[]): Promise<void> {
  const end = performance.now() + WARM_UP.seconds * 1000;
  for (let call = 0; call === 0 || (call < WARM_UP.calls && performance.now() < end); call += 1) {
    await run(client, queries[call % queries.length] as Query);
  }
}

export interface Read extends Omit<Operation, 'unit'> {
  /** Queries that are called one after the other; undefined where the design cannot do it. */
  readonly queriesOf: (design: Design) => readonly Query[] | undefined;
}

/** Measures reads in turns, on every design that can do them. Reads that are compared with each other come in one call. */
export async function measureReads(scene: Scene, ...reads: readonly Read[]): Promise<void> {
  const { client, store, rounds, say } = scene;
  const able = reads.flatMap(({ queriesOf, ...operation }) =>
    scene.designs.flatMap((design) => {
      const queries = queriesOf(design);
      return queries === undefined || queries.length === 0
        ? []
        : [{ operation, design: design.key, queries }];
    }),
  );
  if (able.length === 0) return;
  say(reads.map(({ title }) => title).join('; '));
  for (const { queries } of able) await warmUp(client, queries);
  const spent = able.map(() => 0);
  const samples = await figuresInTurns(
    rounds * TURNS_OF_A_ROUND,
    Object.fromEntries(
      able.map(({ queries }, place) => {
        let turns = 0;
        return [
          place,
          async () => {
            if (turns >= rounds && (spent[place] ?? 0) > MOST_SECONDS_OF_A_ROUND * rounds) return [];
            turns += 1;
            const times = await sample(client, queries);
            spent[place] = (spent[place] ?? 0) + times.reduce((sum, time) => sum + time, 0) / 1000;
            return times;
          },
        ];
      }),
    ),
  );
  for (const [place, { operation, design, queries }] of able.entries()) {
    const turns = (samples[place] ?? []).filter(({ length }) => length > 0);
    const medians = turns.map(median);
    store.add(
      { ...operation, unit: 'ms' },
      {
        design,
        rounds: medians,
        p50: median(medians),
        p99: percentile(turns.flat(), 0.99),
        calls: turns.flat().length,
        buffers: await countBuffers(client, queries[0] as Query),
        walBytes: null,
      },
    );
  }
}

/**
 * Measures calls that can be made once each, in turns. A call is numbered in its round; the pages are those of one more,
 * which is rolled back.
 */
export async function measureCalls(
  { client, designs, store, rounds, say }: Scene,
  operation: Omit<Operation, 'unit'>,
  callOf: (design: Design) => ((round: number, call: number) => Query) | undefined,
  calls = CALLS,
): Promise<void> {
  say(operation.title);
  const able = designs.flatMap((design) => {
    const call = callOf(design);
    return call === undefined ? [] : [{ key: design.key, call }];
  });
  const passed = new Map<string, number>();
  const sampled = await figuresInTurns(
    rounds,
    Object.fromEntries(
      able.map(({ key, call }) => [
        key,
        async () => {
          const round = passed.get(key) ?? 0;
          passed.set(key, round + 1);
          const times: number[] = [];
          const walBytes = await walBytesOf(client, async () => {
            for (let number = 0; number < calls; number += 1) {
              const one = call(round, number);
              const startedAt = performance.now();
              await run(client, one);
              times.push(performance.now() - startedAt);
            }
          });
          return { times, walBytes: walBytes / calls };
        },
      ]),
    ),
  );
  for (const { key, call } of able) {
    const turns = sampled[key] ?? [];
    const times = turns.flatMap((turn) => turn.times);
    const medians = turns.map((turn) => median(turn.times));
    store.add(
      { ...operation, unit: 'ms' },
      {
        design: key,
        rounds: medians,
        p50: median(medians),
        p99: percentile(times, 0.99),
        calls: times.length,
        buffers: await countBuffers(client, call(rounds, 0)),
        // The first round after a checkpoint writes whole pages.
        walBytes: turns.at(-1)?.walBytes ?? null,
      },
    );
  }
}

/** Null of fewer than 20 values. */
export function percentile(values: readonly number[], share: number): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length < 20 ? null : (sorted[Math.ceil(sorted.length * share) - 1] ?? null);
}

/**
 * Makes what countBuffers calls, since triggers that run at the end of a statement belong to a call inside a function;
 * and a function that does nothing, which is the floor of one that does something.
 */
export async function prepareCounting(client: Client): Promise<void> {
  await client.query(`
    create or replace function bench.run(statement text) returns void language plpgsql as $$
    begin
      execute statement;
    end $$;
    create or replace function bench.find_nothing(mount_key text, path text) returns setof filestore.nodes
    language plpgsql stable rows 1 set search_path = pg_catalog, pg_temp as $$
    begin
    end $$`);
}

/**
 * Pages that a statement looks at, its triggers and functions included; what it writes is rolled back. "run" has prepared
 * it: with values in its text, it could have another plan than the calls that were timed.
 */
export async function countBuffers(client: Client, query: Query): Promise<number> {
  await client.query('begin');
  try {
    // The first call of the function also compiles it.
    await client.query("select bench.run('select')");
    const { rows } = await client.query(
      `explain (analyze, buffers, timing off, format json) select bench.run(${pg.escapeLiteral(executeOf(query))})`,
    );
    const plan = rows[0]['QUERY PLAN'][0].Plan;
    return plan['Shared Hit Blocks'] + plan['Shared Read Blocks'];
  } finally {
    await client.query('rollback');
  }
}

function executeOf({ text, values }: Query): string {
  const list = values.map((value) => pg.escapeLiteral(literal(value))).join(', ');
  return `execute ${nameOf(text)}${list === '' ? '' : `(${list})`}`;
}

const literal = (value: unknown) => (Array.isArray(value) ? `{${value.join(',')}}` : String(value));

/** Bytes of WAL that the work writes. Nothing else writes at the same time: autovacuum is off. */
export async function walBytesOf(client: Client, work: () => Promise<unknown>): Promise<number> {
  const { rows: before } = await client.query('select pg_current_wal_insert_lsn() as lsn');
  await work();
  const { rows: after } = await client.query(
    'select (pg_current_wal_insert_lsn() - $1::pg_lsn)::float8 as bytes',
    [before[0].lsn],
  );
  return after[0].bytes;
}
