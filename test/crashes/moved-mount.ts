import type pg from 'pg';
import { withClient } from '../../src/testing/with-client.ts';
import { createSmallMount, NO_ROWS, rowsOf } from '../scaling/small-mounts.ts';
import type { ServerName, TwoServers } from '../scaling/two-servers.ts';

/** A mount on the source, before it moves. */
export interface NewMount {
  readonly key: string;
  readonly id: string;
  readonly rows: unknown;
}

/** Creates a mount with something in each table. */
export async function createMount(servers: TwoServers): Promise<NewMount> {
  return on(servers, 'source', async (database) => {
    const key = await createSmallMount(database);
    const [mount] = await database.query<{ id: string }>(
      'select id from filestore.backend_mounts where mount_key = $1',
      [key],
    );
    const id = mount?.id ?? '';
    return { key, id, rows: await rowsOf(database, id) };
  });
}

/** What is lost, doubled or left. */
export async function findDifferences(
  servers: TwoServers,
  { key, id, rows }: NewMount,
  holder: ServerName,
): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const name of ['source', 'target'] as const) {
    await on(servers, name, async ({ query }) => {
      const found = await rowsOf({ query }, id);
      const expected = name === holder ? rows : NO_ROWS;
      if (JSON.stringify(found) !== JSON.stringify(expected)) {
        faults.push(`rows of the ${name}: ${JSON.stringify(found)} instead of ${JSON.stringify(expected)}`);
      }
      const writes = await query('select filestore.writable_mount($1)', [key]).then(
        () => true,
        () => false,
      );
      if (writes !== (name === holder)) faults.push(`the ${name} ${writes ? 'takes' : 'refuses'} writes`);
      const left = await query<{ line: string }>(LEFT);
      faults.push(...left.map(({ line }) => `left on the ${name}: ${line}`));
    });
  }
  return faults;
}

const LEFT = `
select 'publication ' || pubname as line from pg_publication
union all select 'subscription ' || subname from pg_subscription
union all select 'slot ' || slot_name from pg_replication_slots
union all select 'enabled trigger ' || tgname from pg_trigger
  where tgrelid::regclass::text = 'filestore.nodes' and tgname ~ 'mov' and tgenabled not in ('D', 'O')
union all select to_jsonb(c)::text from filestore.check_integrity() c`;

type Query = Parameters<typeof createSmallMount>[0];

/** Works on one server, as soon as it takes connections. */
async function on<T>(
  servers: TwoServers,
  name: ServerName,
  work: (database: Query) => Promise<T>,
): Promise<T> {
  return withClient(servers[name].url, (client) =>
    work({
      async query<Row extends pg.QueryResultRow>(text: string, values: readonly unknown[] = []) {
        return (await client.query<Row>(text, [...values])).rows;
      },
    }),
  );
}
