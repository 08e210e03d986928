/**
 * A longer run of the test of scans: directory trees on disk, which change at random and are scanned.
 *
 *   node --import tsx test/disk/main.ts -- --seeds 300 --changes 1000 --seed 1
 *
 * Uses the server of TEST_DATABASE_URL or DATABASE_URL, whose role may create databases, or starts one.
 */
import { parseArgs } from 'node:util';
import pg from 'pg';
import { connectionTo, databaseUrl } from '../../harness/connection.ts';
import { runMigrations } from '../../src/index.ts';
import { startTestServer } from '../support/servers/test-server.ts';
import { besideOf, followDisk } from './follow.ts';

const ROUNDS = 10;

interface Run {
  readonly seeds: number;
  readonly changes: number;
  readonly seed: number;
}

async function main({ seeds, changes, seed }: Run): Promise<void> {
  const server = await startTestServer({ TEST_DATABASE_URL: process.env.DATABASE_URL, ...process.env });
  const admin = new pg.Client(server.adminUrl);
  await admin.connect();
  const name = `filestore_disk_${process.pid}`;
  try {
    await admin.query(`create database ${name} encoding 'UTF8' template template0`);
    await runMigrations({ connection: connectionTo(databaseUrl(server.adminUrl, name)) });
    console.log(`${seeds} disks with ${changes} changes each on ${server.name}, from seed ${seed} on`);
    const client = new pg.Client(databaseUrl(server.adminUrl, name));
    await client.connect();
    const failed: number[] = [];
    for (let at = seed; at < seed + seeds; at += 1) {
      const faults = await followDisk(client, {
        seed: at,
        rounds: ROUNDS,
        changes: Math.ceil(changes / ROUNDS),
        mountKey: `disk-${at}`,
      });
      if (faults.length > 0) {
        failed.push(at);
        console.error(faults.join('\n'));
      }
      if ((at - seed + 1) % 10 === 0) console.log(`${at - seed + 1} disks, ${failed.length} of them failed`);
      for (const key of [`disk-${at}`, besideOf(`disk-${at}`)]) {
        await client.query("update filestore.backend_mounts set state = 'inactive' where mount_key = $1", [
          key,
        ]);
        await client.query('call filestore.erase_mount($1)', [key]);
      }
    }
    await client.end();
    if (failed.length > 0) throw new Error(`Seeds that failed: ${failed.join(', ')}`);
    console.log('Every node was where it should be.');
  } finally {
    await admin.query(`drop database if exists ${name} with (force)`);
    await admin.end();
    await server.stop();
  }
}

const USAGE = `npm run disk -- [--seeds 300] [--changes 1000] [--seed N]
It runs on the server of TEST_DATABASE_URL or DATABASE_URL, else on a separate one. A seed repeats a disk.`;

function readNumber(name: string, value: string | undefined, otherwise: number): number {
  const number = Number(value ?? otherwise);
  if (value !== '' && Number.isInteger(number) && number >= 0) return number;
  throw new Error(`--${name} is a number, not "${value}"\n${USAGE}`);
}

try {
  const { values } = parseArgs({
    options: {
      seeds: { type: 'string' },
      changes: { type: 'string' },
      seed: { type: 'string' },
      help: { type: 'boolean' },
    },
    // npm passes "--" on.
    args: process.argv.slice(2).filter((argument) => argument !== '--'),
  });
  if (values.help) console.log(USAGE);
  else
    await main({
      seeds: readNumber('seeds', values.seeds, 300),
      changes: readNumber('changes', values.changes, 1_000),
      seed: readNumber('seed', values.seed, Math.floor(Math.random() * 2 ** 31)),
    });
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
