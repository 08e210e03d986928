import type { TestDatabase } from './test-database.ts';

export const ENTRIES = 300_000;

/**
 * Fills the journal with entries of the past, most of them of mounts 1 and 2 and three commands. Mount 3, the command
 * scan and canceled entries are rare and old. Mount 5 and the command upload are frequent and old. One entry in 200
 * failed, and the last 50 are unfinished.
 */
export async function loadLargeJournal(database: TestDatabase): Promise<void> {
  const client = await database.connectAsSuperuser();
  // Without triggers: they refuse entries of the past.
  await client.query('set session_replication_role = replica');
  await client.query('select setseed(0.5)');
  await client.query(
    `insert into filestore.journal_entries
       (backend_mount_id, command, status, error, started_at, completed_at, created_at, idempotency_key, correlation_id,
        primary_node_id, secondary_node_id, affected_node_ids)
     select case when is_old and g % 10000 = 7 then 3 when g <= 60000 then 5 when chance < 0.7 then 1 else 2 end,
            case when is_old and g % 10000 = 9 then 'scan' when g <= 60000 then 'upload'
                 when chance < 0.5 then 'write' when chance < 0.95 then 'create_node' else 'move_node' end,
            status, case when status = 'failed' then '{"message": "gone"}'::jsonb end,
            case when status <> 'queued' then moment end, case when status not in ('queued', 'running') then moment end, moment,
            case when g % 3 = 0 then 'key-' || g end, 'correlation-' || g / 2,
            node, case when chance >= 0.95 then node + 1 end, array[node, 5000 + g % 20000]
     from (
       select g, g <= 100000 as is_old, random() as chance, (random() * 4000)::bigint as node,
              now() - ($1 - g) * interval '1 minute' as moment,
              case when g > $1 - 50 then case g % 2 when 0 then 'queued' else 'running' end
                   when g % 200 = 11 then 'failed' when g <= 100000 and g % 20000 = 13 then 'canceled' else 'succeeded' end as status
       from generate_series(1, $1::integer) g
     ) past`,
    [ENTRIES],
  );
  await client.query('vacuum analyze filestore.journal_entries');
  await client.end();
}
