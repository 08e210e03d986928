/**
 * Runs every order of the steps of sessions that write at once, and compares each with the serial orders.
 *
 *   node --import tsx test/orders/main.ts -- --only "move a to b,create a/new"
 *
 * Uses the server of TEST_DATABASE_URL or DATABASE_URL, as a superuser, or starts one.
 */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { compilePackage } from '../../harness/compiled.ts';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { playPoints, sampleOf } from '../support/points.ts';
import { startTestServer } from '../support/servers/test-server.ts';
import { casesByKind, casesOf } from './cases.ts';
import { type Case, newTally } from './judge.ts';
import { renderTally, runCases, startWorker } from './orders.ts';
import { openRuns } from './runs.ts';

interface Options {
  readonly cases: Readonly<Record<string, readonly Case[]>>;
  readonly workers: number;
  /** SQL that changes the schema first, such as a fault that must be found. */
  readonly change: string;
  /** Which part of the points of runs; undefined for none. */
  readonly runs: { readonly share: number; readonly seed: number } | undefined;
}

/** Returns whether no order was wrong. */
async function main({ cases, workers, change, runs }: Options): Promise<boolean> {
  const server = await startTestServer({ TEST_DATABASE_URL: process.env.DATABASE_URL, ...process.env });
  const admin = new pg.Client(server.adminUrl);
  await admin.connect();
  const template = `filestore_orders_${process.pid}`;
  const all = Object.values(cases).flat();
  const worlds = [false, true].filter((isMoving) => all.some((one) => one.isMoving === isMoving));
  const databases = worlds.flatMap((isMoving) =>
    Array.from({ length: workers }, (_, at) => ({
      isMoving,
      name: `${template}_${at}${isMoving ? 'm' : ''}`,
    })),
  );
  const roles = { service: `${template}_service`, operator: `${template}_operator` };
  try {
    await admin.query(`create database ${template} encoding 'UTF8' template template0`);
    await runMigrations({ connection: connectionTo(databaseUrl(server.adminUrl, template)) });
    await runStatement(databaseUrl(server.adminUrl, template), change);
    for (const role of Object.values(roles)) await admin.query(`create role ${role}`);
    for (const { name } of databases) await admin.query(`create database ${name} template ${template}`);
    const crew = await Promise.all(
      databases.map(({ name, isMoving }) => startWorker(databaseUrl(server.adminUrl, name), roles, isMoving)),
    );
    console.log(`Orders on ${server.name}`);
    let isRight = true;
    for (const [kind, some] of Object.entries(cases)) {
      const tally = newTally();
      const startedAt = performance.now();
      await runCases(crew, some, tally);
      const seconds = Math.round((performance.now() - startedAt) / 1000);
      console.log(`${kind}: ${renderTally(some, tally)}, in ${seconds} s`);
      isRight &&= tally.differences.length === 0;
    }
    await Promise.all(crew.map((worker) => worker.close()));
    return (runs === undefined || (await playRuns(server.adminUrl, template, runs))) && isRight;
  } finally {
    for (const name of [...databases.map((database) => database.name), template]) {
      await admin.query(`drop database if exists ${name} with (force)`);
    }
    for (const role of Object.values(roles)) await admin.query(`drop role if exists ${role}`);
    await admin.end();
    await server.stop();
  }
}

async function playRuns(
  adminUrl: string,
  template: string,
  { share, seed }: NonNullable<Options['runs']>,
): Promise<boolean> {
  const compiled = await compilePackage();
  try {
    const runs = await openRuns(databaseUrl(adminUrl, template), seed);
    return (await playPoints('runs', runs, (all) => sampleOf(all, share, seed))) === 0;
  } finally {
    compiled.remove();
  }
}

async function runStatement(url: string, text: string): Promise<void> {
  const client = new pg.Client(url);
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

const USAGE = `npm run orders -- [--only "a,b"] [--only runs] [--share 1] [--seed 1] [--workers 2] [--change fault.sql]
It runs on the server of TEST_DATABASE_URL or DATABASE_URL, else on a separate server. --only runs the orders of these
sessions at each isolation level, or those of runs of migrations, and --share a part of all cases, which the seed selects.
--change first runs a file of SQL, to see whether a fault is found.`;

function readNumber(name: string, value: string | undefined, otherwise: number): number {
  const number = Number(value ?? otherwise);
  if (value !== '' && number >= 0) return number;
  throw new Error(`--${name} is a number, not "${value}"\n${USAGE}`);
}

try {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({
    options: {
      only: text,
      kind: text,
      share: text,
      seed: text,
      workers: text,
      change: text,
      help: { type: 'boolean' },
    },
    // npm passes "--" on.
    args: process.argv.slice(2).filter((argument) => argument !== '--'),
  });
  if (values.help) console.log(USAGE);
  else {
    const share = readNumber('share', values.share, 1);
    const seed = readNumber('seed', values.seed, 1);
    const all = Object.entries(casesByKind()).filter(
      ([kind]) => values.kind === undefined || kind === values.kind,
    );
    const isOnlyRuns = values.only === 'runs';
    const runs =
      isOnlyRuns || (values.only === undefined && values.kind === undefined) ? { share, seed } : undefined;
    const cases = isOnlyRuns
      ? {}
      : values.only === undefined
        ? Object.fromEntries(all.map(([kind, some]) => [kind, sampleOf(some, share, seed)]))
        : Object.fromEntries(
            values.only.split('|').map((only) => [only, casesOf(only.split(',').map((name) => name.trim()))]),
          );
    const change = values.change === undefined ? '' : readFileSync(values.change, 'utf8');
    const workers = readNumber('workers', values.workers, 2);
    if (!(await main({ cases, workers, change, runs }))) process.exitCode = 1;
  }
} catch (error) {
  console.error(error instanceof Error && error.cause === undefined ? error.message : error);
  process.exitCode = 1;
}
