import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

/** Creates a folder like one that a killed process leaves: no process listens on its owner's socket. */
export async function abandonFolder(folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true, mode: 0o711 });
  const listen =
    "require('node:net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))";
  await once(spawn(process.execPath, ['-e', listen, join(folder, 'owner')]), 'exit');
}
