import { once } from 'node:events';
import { lstatSync, mkdtempSync, readdirSync, renameSync, rmdirSync, unlinkSync } from 'node:fs';
import { connect, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { codeOf } from '../src/errors.ts';
import { removeFolder } from './remove-folder.ts';

/**
 * A Unix socket on which the folder's owner listens for as long as it lives. The kernel closes it however the process
 * ends, so no process id can be mistaken for another.
 */
const OWNER = 'owner';
/** A socket's path has room for 104 bytes on macOS. Longer ones are cut off without an error. */
const MOST_BYTES = 100;

/** A folder of this process. When the process is killed, the next run removes it. */
export interface TemporaryFolder {
  readonly path: string;
  /** Removes it with everything in it. */
  remove(): Promise<void>;
}

/**
 * Creates one, and first removes abandoned ones with the same parent and prefix.
 * @param prefix Start of its name.
 * @param isInUse As for {@link removeAbandoned}.
 */
export async function makeTemporaryFolder(
  parent: string,
  prefix: string,
  isInUse?: (path: string) => boolean,
): Promise<TemporaryFolder> {
  await removeAbandoned(parent, prefix, isInUse);
  const path = mkdtempSync(join(parent, prefix));
  const owner = await listenIn(path);
  return {
    path,
    async remove() {
      await removeFolder(path, OWNER);
      unlink(join(path, OWNER));
      rmdirSync(path);
      owner?.close();
    },
  };
}

/**
 * Removes the folders of this user that a killed process left behind. Only an owner's socket that no process listens
 * on proves that: a folder without one stays.
 * @param isInUse Whether a server, for example, still uses the folder.
 */
export async function removeAbandoned(
  parent: string,
  prefix: string,
  isInUse: (path: string) => boolean = () => false,
): Promise<void> {
  // If other users can rename folders of this user, a path proves nothing.
  const { mode } = lstatSync(`${parent}/.`);
  if ((mode & 0o022) !== 0 && (mode & 0o1000) === 0) return;
  for (const name of readdirSync(parent)) {
    if (!name.startsWith(prefix)) continue;
    const path = join(parent, name);
    if (!isOwn(path, 'folder') || !isOwn(join(path, OWNER), 'socket')) continue;
    if (!(await isRefused(join(path, OWNER))) || isInUse(path)) continue;
    try {
      // The socket is removed last, so that a partly removed folder still counts as abandoned.
      await removeFolder(path, OWNER);
      unlink(join(path, OWNER));
      rmdirSync(path);
    } catch {
      // Another run removes it at the same time, or something still writes there. Then the next run removes it.
    }
  }
}

async function listenIn(folder: string): Promise<Server | undefined> {
  const draft = join(folder, `${OWNER}.new`);
  if (Buffer.byteLength(draft) > MOST_BYTES) return undefined;
  const server = createServer((socket) => socket.destroy());
  try {
    server.listen(draft);
    await once(server, 'listening');
    // Between bind and listen a connection is refused as if the owner were gone, so the socket has another name until
    // then.
    renameSync(draft, join(folder, OWNER));
  } catch {
    // Some file systems have no sockets. There, the folder of a killed process stays.
    server.close();
    return undefined;
  }
  server.on('error', () => undefined);
  server.unref();
  return server;
}

/** Whether no process listens on the socket; false if that is uncertain. */
async function isRefused(path: string): Promise<boolean> {
  const socket = connect(path);
  try {
    await once(socket, 'connect');
    return false;
  } catch (error) {
    return codeOf(error) === 'ECONNREFUSED';
  } finally {
    socket.destroy();
  }
}

function isOwn(path: string, kind: 'folder' | 'socket'): boolean {
  const entry = lstatSync(path, { throwIfNoEntry: false });
  if (entry === undefined || (process.getuid !== undefined && entry.uid !== process.getuid())) return false;
  return kind === 'folder' ? entry.isDirectory() : entry.isSocket();
}

function unlink(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
  }
}
