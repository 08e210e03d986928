import pg, { type Client } from 'pg';
import { firstLineOf, type MessageProxy, startMessageProxy } from '../../harness/message-proxy.ts';
import { mulberry32 } from '../support/mulberry32.ts';
import { copyEachKind, differencesBetween, readItems, resetItems } from '../support/packages/each-kind.ts';
import type { Points } from '../support/points.ts';
import { type EndableHost, startHost } from '../support/processes/host.ts';
import { endMigrators, readTraces } from '../support/processes/migrator-scene.ts';
import { until } from '../support/until.ts';
import {
  AGAIN,
  type Ended,
  PARTIES,
  type PartyName,
  type PartyScene,
  TO_APPLY,
  type Work,
} from './parties.ts';

type Pair = readonly [first: PartyName, second: PartyName];

/** The first of each is held at each of its messages. Then the second one begins, until it ends or waits. */
const PAIRS: readonly Pair[] = [
  ['run', 'run'],
  ...(['graphile', 'writer', 'verify', 'olderVerify', 'status'] as const).flatMap(
    (other): readonly Pair[] => [
      ['run', other],
      [other, 'run'],
    ],
  ),
];

/** Pairs of which the second one is held too, at a message that the seed selects, while the first one goes on. */
const HELD_TWICE = (['run', 'graphile', 'writer'] as const).map((other): Pair => ['run', other]);

/** A writer locks tables, and graphile-migrate's own command line begins without the lock of a run. */
const mayDisturb = (pair: Pair): boolean => pair.includes('writer') || pair[1] === 'graphile';

const ENDLESS = 'An endless wait';
const ENDLESS_MS = 60_000;
/** As long as one attempt of a migration waits for a table's lock: FILESTORE_MIGRATION_LOCK_TIMEOUT_MS. */
const LONGEST_WAIT_MS = 5_000;

interface Scene extends PartyScene {
  readonly host: EndableHost;
  readonly url: string;
  readonly observer: Client;
  /** One for the first party of a pair, and one for the second. */
  readonly proxies: readonly [MessageProxy, MessageProxy];
  /** What is left when nothing is held, by whether a writer was one of the two. */
  readonly undisturbed: Map<boolean, readonly string[]>;
  /** How often what happened. */
  readonly counts: Map<string, number>;
  longestWaitMs: number;
}

/** All points of a migrated database, of which a superuser's URL is given. */
export async function openRuns(url: string, seed: number): Promise<Points> {
  const copy = copyEachKind();
  const host = startHost();
  const proxies = [await startMessageProxy(url), await startMessageProxy(url)] as const;
  const observer = new pg.Client(url);
  const scene: Scene = {
    ...{ host, url, proxies, observer, folder: copy.folder },
    ...{ undisturbed: new Map(), counts: new Map(), longestWaitMs: 0 },
  };
  const stop = async () => {
    await Promise.allSettled([host.end(), observer.end(), ...proxies.map((proxy) => proxy.stop())]);
    copy.remove();
  };
  try {
    await observer.connect();
    const messagesOf = await playUndisturbed(scene);
    const random = mulberry32(seed);
    const points = (pairs: readonly Pair[], isHeldTwice: boolean) =>
      pairs.flatMap((pair) =>
        (messagesOf.get(pair[0]) ?? []).map((text, at) => {
          const others = messagesOf.get(pair[1])?.length ?? 0;
          const then = isHeldTwice ? 1 + Math.floor(random() * others) : undefined;
          const second = then === undefined ? '' : `, the other one at its message ${then}`;
          return {
            name: `${pair.join(' and ')}: held at message ${at + 1}, ${firstLineOf(text)}${second}`,
            play: () => play(scene, pair, at + 1, then),
          };
        }),
      );
    const all = [...points(PAIRS, false), ...points(HELD_TWICE, true)];
    const lengths = [...messagesOf].map(([name, { length }]) => `${length} of ${name}`);
    const summary = () =>
      [
        `messages: ${lengths.join(', ')}`,
        ...[...scene.counts].sort().map(([what, times]) => `${what} ${times}`),
        `the writer waited ${Math.round(scene.longestWaitMs)} ms at most`,
      ].join('\n  ');
    return { all, summary, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Notes what is left by two parties of which one begins when the other has ended, and returns the messages of each. */
async function playUndisturbed(scene: Scene): Promise<ReadonlyMap<PartyName, readonly string[]>> {
  const messagesOf = new Map<PartyName, readonly string[]>();
  for (const first of Object.keys(PARTIES) as PartyName[]) {
    const faults = await play(scene, [first, first === 'run' ? 'writer' : 'run']);
    if (faults.length > 0) throw new Error(`${first}, not disturbed: ${faults.join('\n')}`);
    messagesOf.set(first, scene.proxies[0].messages);
  }
  scene.counts.clear();
  return messagesOf;
}

/** Holds the first party at a message of it, and maybe the second one, and returns what is wrong at the end. */
async function play(scene: Scene, pair: Pair, at?: number, then?: number): Promise<readonly string[]> {
  const { url, proxies, observer, host, undisturbed } = scene;
  await resetItems(url);
  const urls = [namedUrl(proxies[0], 'first'), namedUrl(proxies[1], 'second')] as const;
  const parties = [PARTIES[pair[0]], PARTIES[pair[1]]] as const;
  await parties[0].prepare?.(urls[0]);
  await parties[1].prepare?.(urls[1]);
  const holds = [holdAt(proxies[0], at), holdAt(proxies[1], then)] as const;
  const faults: string[] = [];
  const limit = setInterval(() => {
    faults.push(ENDLESS);
    for (const hold of holds) hold.release();
    void endMigrators(observer);
  }, ENDLESS_MS);
  /** Until a party ends, is held, or waits for the other one. */
  const settle = async (one: Watched, hold: Hold, name: string, other: string) => {
    const isWaiting = await until(async () => {
      if (one.isOver() || hold.isHeld() || faults.length > 0) return { yes: false };
      return (one.isWaiting() || (await isBlocked(observer, name, other))) && { yes: true };
    });
    if (isWaiting.yes) count(scene, pair, `the ${name} one waited`);
  };
  try {
    const first = watch(parties[0].begin(scene, urls[0]));
    await settle(first, holds[0], 'first', 'second');
    const second = watch(parties[1].begin(scene, urls[1]));
    await settle(second, holds[1], 'second', 'first');
    let releasedAt = performance.now();
    holds[0].release();
    if (then !== undefined) {
      await settle(first, holds[0], 'first', 'second');
      releasedAt = performance.now();
      holds[1].release();
    }
    const ends = await Promise.all([first.ended, second.ended]);
    await until(async () => faults.length > 0 || (await readTraces(observer)).length === 0);
    const found = await readItems(url);
    const expected = undisturbed.get(pair.includes('writer')) ?? found;
    undisturbed.set(pair.includes('writer'), expected);
    return [
      ...faults,
      ...judge(scene, pair, ends, releasedAt),
      ...host.faults,
      ...differencesBetween(expected, found),
    ];
  } finally {
    clearInterval(limit);
  }
}

/** What is wrong about the ends of two parties. */
function judge(scene: Scene, pair: Pair, ends: readonly Noted[], releasedAt: number): readonly string[] {
  const faults = ends.flatMap(({ fault }) => fault ?? []);
  for (const [index, { how, endedAt }] of ends.entries()) {
    count(scene, pair, `${pair[index]} ${how}`);
    if (how === AGAIN && !mayDisturb(pair)) faults.push('The run tried again without a cause');
    if (pair[index] !== 'writer') continue;
    scene.longestWaitMs = Math.max(scene.longestWaitMs, endedAt - releasedAt);
    if (endedAt - releasedAt > LONGEST_WAIT_MS) faults.push('The writer waited too long');
  }
  const applied = ends.reduce((sum, end) => sum + end.applied, 0);
  if (applied !== TO_APPLY) faults.push(`They report ${applied} migrations instead of ${TO_APPLY}`);
  return faults;
}

function count({ counts }: Scene, pair: Pair, what: string): void {
  const key = `${pair.join(' and ')}: ${what}`;
  counts.set(key, (counts.get(key) ?? 0) + 1);
}

interface Hold {
  isHeld(): boolean;
  release(): void;
}

/** Holds a message, and all later ones, until it is released; without a number, none. */
function holdAt(proxy: MessageProxy, number: number | undefined): Hold {
  let [isReached, isReleased] = [false, false];
  let open = () => {};
  const released = new Promise<void>((resolve) => {
    open = resolve;
  });
  const strike = () => {
    isReached = true;
    return released;
  };
  proxy.begin(number === undefined ? undefined : { number, moment: 'before', holdsAll: true, strike });
  return {
    isHeld: () => isReached && !isReleased,
    release() {
      isReleased = true;
      open();
    },
  };
}

type Watched = ReturnType<typeof watch>;
type Noted = Ended & { readonly endedAt: number };

function watch({ ended, isWaiting }: Work) {
  let isOver = false;
  const noted = ended.then((end): Noted => {
    isOver = true;
    return { ...end, endedAt: performance.now() };
  });
  return { isWaiting, isOver: () => isOver, ended: noted };
}

/** Whether a session of one party waits for a session of the other. */
async function isBlocked(observer: Client, name: string, other: string): Promise<boolean> {
  const { rowCount } = await observer.query(
    `select from pg_stat_activity one, unnest(pg_blocking_pids(one.pid)) blocker
     join pg_stat_activity other on other.pid = blocker
     where one.application_name = $1 and other.application_name = $2`,
    [sessionName(name), sessionName(other)],
  );
  return rowCount !== null && rowCount > 0;
}

/** By which `readTraces` finds a session too. */
const sessionName = (name: string) => `filestore migrate ${name}`;

const namedUrl = ({ url }: MessageProxy, name: string) =>
  `${url}${url.includes('?') ? '&' : '?'}application_name=${encodeURIComponent(sessionName(name))}`;
