import { expect } from 'vitest';
import { isRefusal } from '../../src/sql/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { type CliResult, collect, runCli, startCli } from '../support/command-line/command-line.ts';
import { fillMount } from '../support/rows/fill-mount.ts';
import type { ServerName, TwoServers } from './two-servers.ts';

/** Beginnings of the lines that a move prints, in order. */
export const STEPS = [
  'Preparing both servers',
  'Publishing the mount',
  'The target accepts the mount',
  'The target begins to copy',
  'The source counts',
  'The target copies',
  'The target counts',
  'Cutting over',
  'Copying the sightings',
  'Ending the move',
  'Erasing the mount',
] as const;

/** Moves between two servers by the command, and what they lead to. */
export function commandMoves(servers: () => TwoServers) {
  const env = () => ({ FILESTORE_DATABASE_URL: servers().source.url, TARGET_URL: servers().target.url });
  const move = (key: string, ...options: readonly string[]) =>
    runCli(['move', key, '--to', 'TARGET_URL', ...options], { env: env() });
  const on = <Row extends object>(server: ServerName, text: string, values: unknown[] = []) =>
    withClient(servers()[server].url, async (client) => (await client.query<Row>(text, values)).rows);
  const fill = (key: string, nodes = 300) =>
    withClient(servers().source.url, (client) => fillMount(client, key, nodes, 1));

  async function nodesOn(server: ServerName, key: string): Promise<number | undefined> {
    const [row] = await on<{ nodes: number }>(
      server,
      `select count(*)::integer as nodes from filestore.nodes n
     join filestore.backend_mounts m on m.id = n.backend_mount_id where m.mount_key = $1`,
      [key],
    );
    return row?.nodes;
  }

  /** The servers that say that they take writes to the mount. */
  async function holdersOf(key: string): Promise<readonly ServerName[]> {
    const holders: ServerName[] = [];
    for (const server of ['source', 'target'] as const) {
      await on(server, 'select filestore.writable_mount($1)', [key]).then(
        () => holders.push(server),
        (error) => {
          if (!isRefusal(error, 'backend_mounts_moving', 'backend_mounts_missing')) throw error;
        },
      );
    }
    return holders;
  }

  /** Nothing of the move is left on either server, and the mount is on the target. */
  async function expectMoved(key: string, nodes: number | undefined): Promise<void> {
    expect([await nodesOn('source', key), await nodesOn('target', key)]).toEqual([0, nodes]);
    expect(await holdersOf(key)).toEqual(['target']);
    expect(await on('source', 'select pubname from pg_publication')).toEqual([]);
    expect(await on('source', 'select slot_name, active from pg_replication_slots')).toEqual([]);
    expect(await on('target', 'select subname from pg_subscription')).toEqual([]);
    for (const server of ['source', 'target'] as const) {
      expect(await on(server, 'select * from filestore.check_integrity()')).toEqual([]);
    }
  }

  /** Runs the command, and calls back at the line of each step that it has not called back for. */
  async function runAndDisturb(
    key: string,
    seen: Set<string>,
    disturb: (step: string, kill: (signal: NodeJS.Signals) => void) => void,
  ): Promise<CliResult> {
    const child = startCli(['move', key, '--to', 'TARGET_URL'], { env: env() });
    child.stdout?.setEncoding('utf8').on('data', (text: string) => {
      for (const step of STEPS) {
        if (!text.includes(step) || seen.has(step)) continue;
        seen.add(step);
        disturb(step, (signal) => child.kill(signal));
      }
    });
    // So that the failure of a command that hangs has its lines.
    let hangs = false;
    const deadline = setTimeout(() => {
      hangs = true;
      child.kill('SIGKILL');
    }, 100_000);
    const result = await collect(child);
    clearTimeout(deadline);
    expect(hangs ? result.output : '').toBe('');
    return result;
  }

  return { env, move, on, fill, nodesOn, holdersOf, expectMoved, runAndDisturb };
}
