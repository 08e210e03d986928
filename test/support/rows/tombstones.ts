import { type TestDatabase, withoutTriggers } from '../databases/test-database.ts';

/**
 * Moves nodes and their history into the past, as if everything had happened that many days earlier.
 * With triggers, the database would set updated_at.
 */
export async function ageNodes(
  database: TestDatabase,
  days: number,
  ...ids: readonly string[]
): Promise<void> {
  await withoutTriggers(database, async (client) => {
    for (const [table, columns] of [
      ['nodes', ['created_at', 'updated_at', 'deleted_at']],
      ['snapshots', ['created_at', 'updated_at', 'deleted_at', 'valid_from', 'valid_to']],
    ] as const) {
      const changes = columns.map((column) => `${column} = ${column} - $2 * interval '1 day'`);
      await client.query(`update filestore.${table} set ${changes.join(', ')} where id = any($1)`, [
        ids,
        days,
      ]);
    }
  });
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
