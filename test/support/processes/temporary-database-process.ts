/** Opens a temporary database like `npm run db:check`, prints its server's folder, and keeps it until stdin ends. */
import { once } from 'node:events';
import { withTemporaryDatabase } from '../../../dev/embedded/temporary-database.ts';

await withTemporaryDatabase(async (url) => {
  process.stdout.write(`${url}\n`);
  process.stdin.resume();
  await once(process.stdin, 'end');
});
