/**
 * A longer run of the model test: sequences of 400 steps, each in a separate database, with the seeds that
 * follow the given one.
 *
 *   node --import tsx test/model/main.ts -- --steps 20000 --seed 1
 *
 * Uses the server of TEST_DATABASE_URL or DATABASE_URL, whose role may create databases, or starts one.
 */
import { parseArgs } from 'node:util';
import pg from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { startTestServer } from '../support/servers/test-server.ts';
import { runSequence, type Tally } from './sequence.ts';

const SEQUENCE = 400;

async function main(steps: number, seed: number): Promise<void> {
  const server = await startTestServer({
    TEST_DATABASE_URL: process.env.DATABASE_URL,
    ...process.env,
  });
  const admin = new pg.Client(server.adminUrl);
  await admin.connect();
  const template = `filestore_model_${process.pid}`;
  try {
    await admin.query(`create database ${template} encoding 'UTF8' template template0`);
    await runMigrations({ connection: connectionTo(databaseUrl(server.adminUrl, template)) });
    console.log(`${steps} steps on ${server.name}, from seed ${seed} on`);
    const tally: Tally = new Map();
    for (let done = 0, at = seed; done < steps; done += SEQUENCE, at += 1) {
      const name = `${template}_${at}`;
      await admin.query(`create database ${name} template ${template}`);
      try {
        await runOne(databaseUrl(server.adminUrl, name), at, Math.min(SEQUENCE, steps - done), tally);
      } finally {
        await admin.query(`drop database ${name} with (force)`);
      }
    }
    for (const [name, outcomes] of [...tally].sort()) {
      console.log(
        name.padEnd(24),
        [...outcomes]
          .sort()
          .map(([outcome, times]) => `${outcome} ${times}`)
          .join('  '),
      );
    }
  } finally {
    await admin.query(`drop database if exists ${template} with (force)`);
    await admin.end();
    await server.stop();
  }
}

async function runOne(url: string, seed: number, steps: number, tally: Tally): Promise<void> {
  const sql = new pg.Client(url);
  await sql.connect();
  try {
    const startedAt = performance.now();
    for (const [name, outcomes] of await runSequence(sql, { seed, steps })) {
      const sums = tally.get(name) ?? new Map<string, number>();
      for (const [outcome, times] of outcomes) sums.set(outcome, (sums.get(outcome) ?? 0) + times);
      tally.set(name, sums);
    }
    console.log(`seed ${seed}: ${steps} steps in ${Math.round(performance.now() - startedAt)} ms`);
  } finally {
    await sql.end();
  }
}

const USAGE = `npm run model -- [--steps 20000] [--seed N]
It runs on the server of TEST_DATABASE_URL or DATABASE_URL, else on one of its own. A seed repeats a run.`;

function readNumber(name: string, value: string | undefined, otherwise: number): number {
  const number = Number(value ?? otherwise);
  if (value !== '' && Number.isInteger(number) && number >= 0) return number;
  throw new Error(`--${name} is a number, not "${value}"\n${USAGE}`);
}

try {
  const { values } = parseArgs({
    options: { steps: { type: 'string' }, seed: { type: 'string' }, help: { type: 'boolean' } },
    // npm passes "--" on.
    args: process.argv.slice(2).filter((argument) => argument !== '--'),
  });
  if (values.help) console.log(USAGE);
  else
    await main(
      readNumber('steps', values.steps, 20_000),
      readNumber('seed', values.seed, Math.floor(Math.random() * 2 ** 31)),
    );
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
