import type { TestDatabase } from './test-database.ts';

/**
 * Moves nodes and their history into the past, as if everything had happened that many days earlier.
 * Only a superuser with triggers switched off can, since the database sets updated_at.
 */
export async function ageNodes(
  database: TestDatabase,
  days: number,
  ...ids: readonly string[]
): Promise<void> {
  const client = await database.connect();
  await client.query('begin');
  await client.query('set local session_replication_role = replica');
  for (const [table, columns] of [
    ['nodes', ['created_at', 'updated_at', 'deleted_at']],
    ['snapshots', ['created_at', 'updated_at', 'deleted_at', 'valid_from', 'valid_to']],
  ] as const) {
    const changes = columns.map((column) => `${column} = ${column} - $2 * interval '1 day'`);
    await client.query(`update filestore.${table} set ${changes.join(', ')} where id = any($1)`, [ids, days]);
  }
  await client.query('commit');
  await client.end();
}

/** Deletes nodes, and moves the deletion that many days into the past. */
export async function deleteDaysAgo(
  database: TestDatabase,
  days: number,
  ...ids: readonly string[]
): Promise<void> {
  await database.query("update filestore.nodes set state = 'deleted' where id = any($1)", [ids]);
  await ageNodes(database, days, ...ids);
}
