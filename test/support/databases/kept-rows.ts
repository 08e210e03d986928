import type { TestDatabase } from './test-database.ts';

/**
 * Keeps all rows of a database, and returns a function that puts them back, with the same ids. Quicker than making them
 * again. Sequences go on.
 */
export async function keepRows(database: TestDatabase): Promise<() => Promise<void>> {
  const superuser = await database.connectAsSuperuser();
  const { rows } = await superuser.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = 'filestore'::regnamespace and relkind = 'r' order by 1`,
  );
  await superuser.query('create schema kept');
  for (const { name } of rows) await superuser.query(`create table kept.${name} as table filestore.${name}`);
  // As a replica, so that no trigger and no foreign key sees it.
  await superuser.query(`
    create function kept.put_back() returns void language plpgsql set session_replication_role = replica as $$
    begin
      ${rows.map(({ name }) => `delete from filestore.${name};`).join(' ')}
      ${rows.map(({ name }) => `insert into filestore.${name} overriding system value table kept.${name};`).join(' ')}
    end $$`);
  return async () => {
    const client = await database.connectAsSuperuser();
    await client.query('select kept.put_back()');
    await client.end();
  };
}
