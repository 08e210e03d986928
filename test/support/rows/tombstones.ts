import { makeOlder } from '../../../src/testing/make-older.ts';
import type { TestDatabase } from '../databases/test-database.ts';

/** Moves nodes, their history and their sightings into the past, as if everything had happened that many days earlier. */
export async function ageNodes(
  database: TestDatabase,
  days: number,
  ...ids: readonly string[]
): Promise<void> {
  const owner = await database.connect();
  try {
    await makeOlder(owner, `${days} days`, ids);
  } finally {
    await owner.end();
  }
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
