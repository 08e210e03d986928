import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Client } from 'pg';
import { databaseUrl } from '../harness/connection.ts';
import { copyPackage, type PackageCopy } from '../harness/package-copy.ts';
import { type BenchDatabase, type BenchServer, withDatabase } from './bench-server.ts';
import type { Comparison } from './context.ts';
import { atMost, compare, inTurns, secondsOf } from './measure.ts';

/** A checkout with a running watch. */
interface Desk {
  /** Saves another version of current.sql, and returns the milliseconds until the database has it. */
  save(): Promise<number>;
  close(): void;
}

const HERE = ['--import', 'tsx', join('dev', 'cli.ts'), 'watch'];
const GRAPHILE = [join('node_modules', 'graphile-migrate', 'dist', 'cli.js'), 'watch'];
const LEAST_ROUNDS = 7;

/** From a save to the change in the database: `npm run db:watch` against graphile-migrate's own watch. */
export const watch: Comparison = async ({ server, rounds, report }) => {
  await withDatabase(server, (one) =>
    withDatabase(server, async (other) => {
      const desks = [await openDesk(server, one, HERE), await openDesk(server, other, GRAPHILE)] as const;
      try {
        const [here, graphile] = desks;
        const times = await inTurns(Math.max(rounds, LEAST_ROUNDS), {
          here: () => here.save(),
          graphile: () => graphile.save(),
        });
        report(
          compare(
            "save to applied, twin: graphile-migrate's watch",
            'ms',
            times.here,
            times.graphile,
            atMost(1.5),
          ),
        );
      } finally {
        for (const desk of desks) desk.close();
      }
    }),
  );
};

async function openDesk(
  server: BenchServer,
  { url, client }: BenchDatabase,
  command: readonly string[],
): Promise<Desk> {
  const copy = copyPackage();
  const name = new URL(url).pathname.slice(1);
  const child = spawn(process.execPath, command, {
    cwd: copy.folder,
    env: {
      ...process.env,
      DATABASE_URL: url,
      SHADOW_DATABASE_URL: databaseUrl(server.adminUrl, `${name}_shadow`),
      ROOT_DATABASE_URL: server.adminUrl,
    },
    stdio: 'ignore',
  });
  await client.query('listen saved');
  const desk = deskOf(copy, child, client);
  // At its start, watch applies the present current.sql. It is ready after that.
  await desk.save();
  return desk;
}

function deskOf(copy: PackageCopy, child: ChildProcess, client: Client): Desk {
  let version = 0;
  return {
    async save() {
      version += 1;
      const sql = `--!include views/view_filestore_active_nodes.sql\nnotify saved, '${version}';\n`;
      const applied = untilNotified(client, String(version), child);
      return (
        1000 *
        (await secondsOf(async () => {
          writeFileSync(join(copy.folder, 'migrations', 'current.sql'), sql);
          await applied;
        }))
      );
    },
    close() {
      child.kill('SIGKILL');
      copy.remove();
    },
  };
}

/** Waits for a notification, which arrives when its transaction is committed. */
function untilNotified(client: Client, payload: string, child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    const ended = () => reject(new Error('the watch ended'));
    const listen = (message: { readonly payload?: string | undefined }) => {
      if (message.payload !== payload) return;
      client.off('notification', listen);
      child.off('exit', ended);
      resolve();
    };
    client.on('notification', listen);
    child.once('exit', ended);
  });
}
