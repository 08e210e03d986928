/** A worker that runs one command, so that a test can kill it: `<mount id> <file id> <key>`. Prints its state. */
import { closePool } from '../../../src/index.ts';
import { addOne } from '../rows/counted-commands.ts';

const [mountId = '', fileId = '', key] = process.argv.slice(2);
const { state } = await addOne({ mountId, fileId }, key);
await closePool();
console.log(state);
