import { setTimeout as delay } from 'node:timers/promises';
import pg, { type Client } from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { type Check, checkEverything } from './checker.ts';
import { createTally, noteFault, type Tally } from './counts.ts';
import { startTortureServer, type TortureServer } from './killable-server.ts';
import { refresh } from './known-nodes.ts';
import { createLink, errorCode, isConnectionLoss } from './link.ts';
import { endPassing, passMount } from './passing-mounts.ts';
import { prepare } from './prepare.ts';
import { READS } from './reads.ts';
import { createRecorder, type Recorder } from './recorder.ts';
import { runWorker } from './run-worker.ts';
import { SCANS } from './scan-operations.ts';
import { type Random, seededRandom } from './seeded-random.ts';
import { SHAPE } from './shape.ts';
import type { Stage } from './stage.ts';
import { FOLD, UPKEEP } from './upkeep-operations.ts';
import { WRITES } from './writes.ts';

export interface TortureOptions {
  readonly seconds: number;
  readonly workers: number;
  readonly seed: number;
  /** How often the server is killed, spread over the run. */
  readonly kills: number;
  readonly backendsPerMinute: number;
  /** Removes the tree lock first, to prove that the run detects that. */
  readonly withoutTreeLock?: boolean;
  /** Ends the run at the first wrong reading or deadlock. */
  readonly stopAtFirstCollision?: boolean;
  /** Aborts the run: everything is stopped and removed, and nothing is checked. */
  readonly signal?: AbortSignal;
  onProgress?(tally: Tally, elapsedMs: number): void;
}

export interface TortureResult {
  readonly options: TortureOptions;
  readonly serverVersion: string;
  readonly elapsedMs: number;
  readonly tally: Tally;
  readonly recorder: Recorder;
  readonly checks: readonly Check[];
}

const PROGRESS_MS = 10_000;
const LOOK_MS = 400;

/** Runs the workers on a separate server, kills it and its backends, and checks the database at the end. */
export async function torture(options: TortureOptions): Promise<TortureResult> {
  const server = await startTortureServer();
  try {
    return await tortureServer(server, options);
  } finally {
    await server.remove();
  }
}

async function tortureServer(server: TortureServer, options: TortureOptions): Promise<TortureResult> {
  const url = databaseUrl(server.adminUrl, 'torture');
  await withAdmin(server.adminUrl, (admin) =>
    admin.query(`create database torture encoding 'UTF8' template template0`),
  );
  await runMigrations({ connection: connectionTo(url) });
  const { scene, serverVersion } = await withAdmin(url, async (admin) => ({
    scene: await prepare(admin, server.password, options.withoutTreeLock ?? false),
    serverVersion: (await admin.query('show server_version')).rows[0].server_version as string,
  }));

  const started = Date.now();
  const timeUp = new AbortController();
  const givenUp = options.signal ?? new AbortController().signal;
  const stage: Stage = {
    scene,
    recorder: createRecorder(),
    tally: createTally(),
    timeUp: timeUp.signal,
    givenUp,
    onCollision: () => {
      if (options.stopAtFirstCollision ?? false) timeUp.abort();
    },
  };
  const progress = setInterval(() => options.onProgress?.(stage.tally, Date.now() - started), PROGRESS_MS);
  try {
    const running = [
      ...startWorkers(stage, url, server.password, options),
      look(stage, url),
      passMounts(stage, url, options),
      terminateBackends(stage, url, options),
      killServer(stage, server, options),
    ];
    // If one worker fails, all stop, and they stop before the server.
    for (const part of running) part.catch(() => timeUp.abort());
    await pause(options.seconds * 1000, timeUp.signal, givenUp);
    timeUp.abort();
    for (const outcome of await Promise.allSettled(running)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  } finally {
    clearInterval(progress);
  }
  givenUp.throwIfAborted();
  const elapsedMs = Date.now() - started;
  const checks = await withAdmin(url, async (admin) => {
    await endPassing(admin);
    return checkEverything(admin, stage.recorder);
  });
  return { options, serverVersion, elapsedMs, tally: stage.tally, recorder: stage.recorder, checks };
}

function startWorkers(
  stage: Stage,
  url: string,
  password: string,
  { workers, seed }: TortureOptions,
): readonly Promise<void>[] {
  const operators = workers >= 16 ? 2 : 1;
  return Array.from({ length: workers }, (_, index) => {
    const isOperator = index < operators;
    const login = new URL(url);
    login.username = isOperator ? 'torture_operator' : 'torture_service';
    login.password = password;
    const operations = isOperator ? UPKEEP : [...WRITES, ...SHAPE, ...SCANS, ...READS, FOLD];
    return runWorker(stage, login.href, operations, seededRandom(seed * 1000 + index));
  });
}

/** Reads the tree from time to time, so that the workers can choose nodes from it. */
async function look(stage: Stage, url: string): Promise<void> {
  await repeat(
    stage,
    url,
    () => LOOK_MS,
    (client) => refresh(stage.scene, client),
  );
}

/** Moves and erases a mount while it is scanned. */
async function passMounts(stage: Stage, url: string, { seed }: TortureOptions): Promise<void> {
  const random = seededRandom(seed + 2);
  await repeat(
    stage,
    url,
    () => random.between(50, 500),
    async (client) => {
      try {
        await passMount(stage.scene, client, random);
        stage.tally.mountsPassed += 1;
      } catch (error) {
        if (errorCode(error) !== '40P01') throw error;
        stage.tally.deadlocks += 1;
        noteFault(stage.tally, `a mount that comes and goes: ${error}`);
        stage.onCollision();
      }
    },
  );
}

async function terminateBackends(stage: Stage, url: string, options: TortureOptions): Promise<void> {
  if (options.backendsPerMinute <= 0) return;
  const random = seededRandom(options.seed);
  const mean = 60_000 / options.backendsPerMinute;
  await repeat(
    stage,
    url,
    () => mean * 2 * random.next(),
    async (client) => {
      const { rows } = await client.query<{ gone: boolean }>(
        `select pg_terminate_backend(pid) as gone from (
         select pid from pg_stat_activity where usename like 'torture\\_%'
         -- A scan continues after any of its batches.
         order by random() < 0.3 and query like '%apply\\_scan%' desc, random() limit 1
       ) chosen`,
      );
      if (rows[0]?.gone === true) stage.tally.backendsTerminated += 1;
    },
  );
}

async function repeat(
  { timeUp, givenUp }: Stage,
  url: string,
  pauseMs: () => number,
  work: (client: Client) => Promise<void>,
): Promise<void> {
  const link = createLink(url, givenUp, () => undefined);
  try {
    for (;;) {
      await pause(pauseMs(), timeUp, givenUp);
      if (timeUp.aborted || givenUp.aborted) return;
      try {
        await work(await link.client());
      } catch (error) {
        if (givenUp.aborted) return;
        if (!isConnectionLoss(errorCode(error))) throw error;
        link.drop();
      }
    }
  } finally {
    await link.close();
  }
}

/** Kills and restarts the server at about equal intervals, never at the very end. */
async function killServer(stage: Stage, server: TortureServer, options: TortureOptions): Promise<void> {
  const random: Random = seededRandom(options.seed + 1);
  const distance = (options.seconds * 1000) / (options.kills + 1);
  for (let kill = 0; kill < options.kills; kill += 1) {
    await pause(distance * (0.8 + 0.4 * random.next()), stage.timeUp, stage.givenUp);
    if (stage.timeUp.aborted || stage.givenUp.aborted) return;
    await server.kill();
    stage.tally.serverKills += 1;
    await delay(random.between(0, 300));
    await server.restart();
  }
}

/** Waits for a time, or until one of the signals comes. */
async function pause(ms: number, ...signals: readonly AbortSignal[]): Promise<void> {
  await delay(ms, undefined, { signal: AbortSignal.any([...signals]) }).catch(() => undefined);
}

async function withAdmin<T>(url: string, work: (admin: Client) => Promise<T>): Promise<T> {
  const admin = new pg.Client({ connectionString: url, statement_timeout: 0 });
  admin.on('error', () => undefined);
  await admin.connect();
  try {
    return await work(admin);
  } finally {
    await admin.end();
  }
}
