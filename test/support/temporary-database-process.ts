/** Opens a temporary database as `npm run db:check` does, says where its server is, and keeps it until stdin ends. */
import { once } from 'node:events';
import { withTemporaryDatabase } from '../../dev/temporary-database.ts';

await withTemporaryDatabase(async (url) => {
  process.stdout.write(`${url}\n`);
  process.stdin.resume();
  await once(process.stdin, 'end');
});
