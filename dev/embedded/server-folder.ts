import { chmodSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeTemporaryFolder, type TemporaryFolder } from '../temporary-folder.ts';
import { type Account, makeFolderFor } from './account.ts';
import type { Listen } from './server.ts';
import { serverIsAlive } from './server-data.ts';

/** A temporary folder for a server's files. */
export interface ServerFolder extends TemporaryFolder {
  /** A Unix socket in it. */
  readonly listen: Extract<Listen, { readonly kind: 'socket' }>;
}

/**
 * Creates one in the system's folder for temporary files. It belongs to this user. The server's account can write
 * only to folders in which this user opens no file, so that it cannot plant links for root to follow.
 * @param prefix Short: the path of a Unix socket has room for about a hundred bytes.
 */
export async function makeServerFolder(account: Account, prefix: string): Promise<ServerFolder> {
  // After a kill of its owner, a server takes a moment to end.
  const folder = await makeTemporaryFolder(tmpdir(), prefix, serverIsAlive);
  // The account must be able to pass through it to its own folders.
  if (account.kind === 'nobody') chmodSync(folder.path, 0o711);
  const socket = join(folder.path, 'socket');
  makeFolderFor(account, socket);
  return { ...folder, listen: { kind: 'socket', folder: socket, port: 5432 } };
}
