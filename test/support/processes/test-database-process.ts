/** Creates a test database as the tests of a service do, prints its name, and keeps it until stdin ends. Argument: the server's URL. */
import { once } from 'node:events';
import { createTestDatabase } from '../../../src/testing/index.ts';

const database = await createTestDatabase({ server: process.argv[2] });
process.stdout.write(`${database.name}\n`);
process.stdin.resume();
await once(process.stdin, 'end');
await database.close();
