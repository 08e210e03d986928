import pg from 'pg';
import { databaseUrl } from '../../harness/connection.ts';
import { followDisk } from '../disk/follow.ts';
import { runSequence } from '../model/sequence.ts';
import type { Failure } from './session.ts';

interface Sequences {
  readonly seeds: readonly number[];
  /** Runs one of them. Throws, or returns what is wrong. */
  readonly run: (client: pg.Client, seed: number) => Promise<readonly string[]>;
}

/**
 * The tests with random operations, by their files. Their first sequences run here, without vitest, so that a caught mutant
 * takes a second. They are cut short: most mutants fail early.
 */
const SEQUENCES: ReadonlyMap<string, Sequences> = new Map([
  [
    'test/model/model.slow.test.ts',
    {
      seeds: [1],
      run: async (client, seed) => {
        await runSequence(client, { seed, steps: 100 });
        return [];
      },
    },
  ],
  [
    'test/disk/disk.slow.test.ts',
    {
      seeds: [4, 7, 5, 1, 6, 2],
      run: (client, seed) => followDisk(client, { seed, rounds: 5, changes: 40, mountKey: 'disk' }),
    },
  ],
]);

/** For a mutant that does not end. The longest statement of an unchanged schema takes 0.1 s. */
const LIMIT_MS = 20_000;

/** Whether a file's sequences run here, in both lanes. */
export const isRandom = (file: string): boolean => SEQUENCES.has(file);

export interface SequenceServer {
  readonly superuser: pg.Client;
  readonly adminUrl: string;
  readonly template: string;
  readonly owner: string;
  /** Called with each database before it is dropped. */
  readonly afterEach?: (database: string) => Promise<void>;
}

/** Runs the sequences of a file until one finds a fault. */
export async function runSequences(
  file: string,
  { superuser, adminUrl, template, owner, afterEach }: SequenceServer,
): Promise<Failure | undefined> {
  const sequences = SEQUENCES.get(file);
  if (sequences === undefined) throw new Error(`${file} has no random sequences`);
  const { seeds, run } = sequences;
  for (const seed of seeds) {
    const name = `${template}_random_${seed}`;
    await superuser.query(`create database ${name} owner ${owner} template ${template} strategy file_copy`);
    try {
      await runOne(databaseUrl(adminUrl, name), seed, run);
      await afterEach?.(name);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return { file, test: `seed ${seed}`, message: message.split('\n').slice(0, 3).join(' ') };
    } finally {
      await superuser.query(`drop database if exists ${name} with (force)`);
    }
  }
  return undefined;
}

async function runOne(url: string, seed: number, run: Sequences['run']): Promise<void> {
  const client = new pg.Client({ connectionString: url, statement_timeout: LIMIT_MS / 4 });
  client.on('error', () => undefined);
  await client.connect();
  // A loop in the test itself, such as one over pages, ends with its connection.
  const timer = setTimeout(() => void client.end().catch(() => undefined), LIMIT_MS);
  try {
    const faults = await run(client, seed);
    if (faults.length > 0) throw new Error(faults.join('\n'));
  } finally {
    clearTimeout(timer);
    await client.end().catch(() => undefined);
  }
}
