import { withClient } from '../../src/testing/with-client.ts';
import { until } from '../support/until.ts';
import type { TwoServers } from './two-servers.ts';

/** What is killed, and at which stage of the copy. */
export type Disturb = (servers: TwoServers) => Promise<void>;

/** Kills the target with SIGKILL while rows of nodes are being copied, or were. */
export const killTarget: Disturb = async (servers) => {
  await untilCopying(servers);
  await servers.target.server.restart('kill');
};

export const endWorkers: Disturb = async ({ target }) => {
  await endSome(
    target.superuserUrl,
    'select pg_terminate_backend(pid) from pg_stat_subscription where pid is not null',
  );
};

export const endSenders: Disturb = async ({ source }) => {
  await endSome(source.superuserUrl, 'select pg_terminate_backend(pid) from pg_stat_replication');
};

async function endSome(url: string, statement: string): Promise<void> {
  await until(() => withClient(url, async (client) => ((await client.query(statement)).rowCount ?? 0) > 0));
}

async function untilCopying({ target }: TwoServers): Promise<void> {
  await until(() =>
    withClient(target.url, async (client) => {
      const { rowCount } = await client.query(
        "select from pg_subscription_rel where srrelid = 'filestore.nodes'::regclass and srsubstate <> 'i'",
      );
      return (rowCount ?? 0) > 0;
    }),
  );
}
