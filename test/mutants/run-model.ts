import pg from 'pg';
import { databaseUrl } from '../../harness/connection.ts';
import { runSequence } from '../model/sequence.ts';
import type { Failure } from './session.ts';

/** The test with random operations. Its sequences run here, without vitest, so that a caught mutant takes a second. */
export const MODEL = 'test/model/model.slow.test.ts';

/** The first sequence of that test, cut short: most mutants fail early. */
const SEEDS = [1];
const STEPS = 100;
/** For a mutant that does not end. The longest statement of an unchanged schema takes 0.1 s. */
const LIMIT_MS = 20_000;

export interface ModelServer {
  readonly superuser: pg.Client;
  readonly adminUrl: string;
  readonly template: string;
  readonly owner: string;
  /** Called with each database before it is dropped. */
  readonly afterEach?: (database: string) => Promise<void>;
}

/** Runs the sequences until one differs from the model. */
export async function runModel({
  superuser,
  adminUrl,
  template,
  owner,
  afterEach,
}: ModelServer): Promise<Failure | undefined> {
  for (const seed of SEEDS) {
    const name = `${template}_model_${seed}`;
    await superuser.query(`create database ${name} owner ${owner} template ${template} strategy file_copy`);
    try {
      await runOne(databaseUrl(adminUrl, name), seed);
      await afterEach?.(name);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return {
        file: MODEL,
        test: `the database behaves like a plain model: seed ${seed}`,
        message: message.split('\n').slice(0, 3).join(' '),
      };
    } finally {
      await superuser.query(`drop database if exists ${name} with (force)`);
    }
  }
  return undefined;
}

async function runOne(url: string, seed: number): Promise<void> {
  const client = new pg.Client({ connectionString: url, statement_timeout: LIMIT_MS / 4 });
  client.on('error', () => undefined);
  await client.connect();
  // A loop in the test itself, such as one over pages, ends with its connection.
  const timer = setTimeout(() => void client.end().catch(() => undefined), LIMIT_MS);
  try {
    await runSequence(client, { seed, steps: STEPS });
  } finally {
    clearTimeout(timer);
    await client.end().catch(() => undefined);
  }
}
