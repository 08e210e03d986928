import { mkdtempSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { giveToServer } from './account.ts';
import type { Listen } from './server.ts';

/** A temporary folder for a server's files. */
export interface ServerFolder {
  readonly path: string;
  /** A Unix socket in it. */
  readonly listen: Extract<Listen, { readonly kind: 'socket' }>;
  /** Removes it with everything in it. */
  remove(): Promise<void>;
}

/**
 * Creates one in the system's folder for temporary files.
 * @param prefix Short: the path of a Unix socket has room for about a hundred bytes.
 */
export function makeServerFolder(prefix: string): ServerFolder {
  const path = mkdtempSync(join(tmpdir(), prefix));
  giveToServer(path);
  return {
    path,
    listen: { kind: 'socket', folder: path, port: 5432 },
    // Backends of a killed server may still be writing.
    remove: () => rm(path, { recursive: true, force: true, maxRetries: 10 }),
  };
}
