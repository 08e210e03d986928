import { setTimeout as delay } from 'node:timers/promises';
import { isRefusal } from '../../src/sql/index.ts';
import { withClient } from '../../src/testing/with-client.ts';
import { isOfDownServer } from './move-writers.ts';
import type { ServerName, TwoServers } from './two-servers.ts';

export interface RegularWork {
  stopOn(server: ServerName): Promise<void>;
  stop(): Promise<void>;
  faults(): readonly string[];
}

/** Folds totals, purges every tombstone at once and expires old commands on both servers, as docs/upkeep.md asks. */
export function startRegularWork(servers: TwoServers): RegularWork {
  const stopped = new Set<ServerName>();
  const faults: string[] = [];
  const work = async (name: ServerName) => {
    let refusals = 0;
    while (!stopped.has(name)) {
      try {
        await withClient(servers[name].url, async (client) => {
          await client.query('select filestore.fold_rollups(10000)');
          await client.query("select filestore.purge_deleted(older_than => '0', batch => 500)");
          await client.query("select filestore.expire_commands(older_than => '1 day')");
        });
        refusals = 0;
      } catch (error) {
        // A purge that has begun when the mount is closed is refused, the next one skips the mount.
        if (isRefusal(error, 'backend_mounts_moving')) refusals += 1;
        if (refusals > 1 || (refusals === 0 && !isOfDownServer(error)))
          faults.push(`upkeep of the ${name}: ${error}`);
      }
      await delay(100);
    }
  };
  const running = { source: work('source'), target: work('target') };
  const stopOn = async (server: ServerName) => {
    stopped.add(server);
    await running[server];
  };
  return {
    stopOn,
    async stop() {
      await Promise.all([stopOn('source'), stopOn('target')]);
    },
    faults: () => faults,
  };
}
