import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withClient } from '../../src/testing/with-client.ts';
import { examplesOf } from '../support/packages/examples.ts';
import { fillMount } from '../support/rows/fill-mount.ts';
import { until } from '../support/until.ts';
import { type Block, recipeOf, runBlock } from './recipe.ts';
import { startTwoServers, type TwoServers, withMigratedDatabase } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
});
afterAll(() => servers.stop());

const onTarget = <Row extends object>(text: string) =>
  withClient(servers.target.url, async (client) => (await client.query<Row>(text)).rows);
const onSource = <Row extends object>(text: string) =>
  withClient(servers.source.url, async (client) => (await client.query<Row>(text)).rows);

const isFrom19 = async () =>
  (
    await onSource<{ is: boolean }>("select current_setting('server_version_num')::integer >= 190000 as is")
  )[0]?.is;

/** Every row of every table of the schema, as a checksum of each table. */
async function checksums(ask: typeof onSource): Promise<Readonly<Record<string, string>>> {
  const tables = await ask<{ name: string }>(
    "select relname as name from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'r' order by 1",
  );
  const found: Record<string, string> = {};
  for (const { name } of tables) {
    const rows = await ask<{ checksum: string }>(
      `select count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' order by t::text collate "C")), '') as checksum
       from filestore.${name} t`,
    );
    found[name] = rows[0]?.checksum ?? '';
  }
  return found;
}

describe('a catalogue that is replicated whole', () => {
  test('arrives exactly, writes during the copy included, and continues after the switch', async () => {
    await withClient(servers.source.url, (client) => fillMount(client, 'media', 2000, 2));
    const steps = recipeOf('Replicate the whole catalogue');
    const isEnd = ({ text }: Block) => text.includes('drop subscription');
    for (const step of steps.filter((block) => !isEnd(block) && block.mode === 'once')) {
      await runBlock(servers, step);
    }
    await onSource("update filestore.nodes set size_bytes = 7 where name like 'file-1%' and live");
    await onSource("select filestore.upsert_file('media', 'd1/late', 9)");
    const [gone] = await onSource<{ id: string }>(
      "select id from filestore.upsert_file('media', 'd1/gone', 9)",
    );
    await onSource(`select filestore.delete_node(${gone?.id})`);
    await onSource("select filestore.purge_deleted('0')");
    await onSource('select filestore.fold_rollups()');
    for (const step of steps.filter(({ mode }) => mode === 'repeated')) await runBlock(servers, step);
    expect(await checksums(onTarget)).toEqual(await checksums(onSource));

    expect(await onTarget('select table_name from filestore.check_sequences()')).not.toEqual([]);
    for (const { statement } of examplesOf('docs/upkeep.md').filter(
      ({ section }) => section === 'Sequences after a switch of servers',
    )) {
      await onTarget(statement);
    }
    const nextId = async () => {
      const [next] = await onTarget<{ id: string }>(
        "select pg_sequence_last_value('filestore.nodes_id_seq') + 1 as id",
      );
      return next?.id;
    };
    expect(await nextId()).toBe(gone?.id);
    if (await isFrom19()) {
      for (const step of recipeOf('Sequences on PostgreSQL 19')) await runBlock(servers, step);
      expect(await nextId()).toBe(String(BigInt(gone?.id ?? 0) + 1n));
    }
    for (const step of steps.filter(isEnd)) await runBlock(servers, step);
    await onTarget("select filestore.upsert_file('media', 'd1/new', 9)");
    expect(await onTarget('select * from filestore.check_integrity()')).toEqual([]);
    expect(await onTarget('select role_name from filestore.access_levels')).toEqual([]);
  }, 180_000);

  test('never arrives whole when all tables of the database are published', async () => {
    await withClient(servers.source.superuserUrl, (client) =>
      client.query('create publication everything for all tables'),
    );
    const { source, target } = servers;
    const connection = `host=${source.server.host} port=${source.server.port} dbname=filestore user=postgres password=${new URL(source.superuserUrl).password}`;
    await withMigratedDatabase(target.server, 'everything', (url) =>
      withClient(url, async (client) => {
        await client.query(
          `create subscription everything connection '${connection}' publication everything`,
        );
        const unfinished = await until(async () => {
          const { rows } = await client.query<{ name: string }>(
            "select srrelid::regclass::text as name from pg_subscription_rel where srsubstate <> 'r'",
          );
          const { rows: errors } = await client.query<{ errors: number }>(
            "select filestore.subscription_errors('everything')::integer as errors",
          );
          return rows.length === 1 && (errors[0]?.errors ?? 0) > 1 ? rows : undefined;
        });
        expect(unfinished).toEqual([{ name: 'graphile_migrate.migrations' }]);
        await client.query('drop subscription everything');
      }),
    );
  }, 120_000);
});
