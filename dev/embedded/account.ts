import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chownSync, lstatSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { FilestoreError } from '../../src/errors.ts';

/**
 * The account that runs the server. Postgres refuses to run as root, so root runs it as `nobody`, which every Unix
 * has.
 */
export type Account =
  | { readonly kind: 'self' }
  | { readonly kind: 'nobody'; readonly uid: number; readonly gid: number };

export function serverAccount(): Account {
  if (process.getuid?.() !== 0) return { kind: 'self' };
  const number = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  return { kind: 'nobody', uid: number('-u'), gid: number('-g') };
}

/** The account as options of child_process. */
export function identityOf(account: Account): { readonly uid?: number; readonly gid?: number } {
  return account.kind === 'self' ? {} : { uid: account.uid, gid: account.gid };
}

/** Whether the account can reach a path, tested by trying: `nobody` cannot reach a folder below /root. */
export function canUse(account: Account, path: string): boolean {
  if (account.kind === 'self') return true;
  const test = spawnSync('test', ['-x', path], { ...identityOf(account), cwd: '/', stdio: 'ignore' });
  return test.status === 0;
}

/**
 * Creates a folder that belongs to the account and is closed to others. Root must not open a file for writing in it,
 * because the account can replace the file by a link.
 */
export function makeFolderFor(account: Account, path: string): void {
  mkdirSync(path, { mode: 0o700 });
  if (account.kind === 'nobody') chownSync(path, account.uid, account.gid);
}

/**
 * The folder for an embedded server's files: `wanted` or, if the account cannot reach it, a folder of this user in
 * the system's folder for temporary files that survive a restart.
 */
export function reachableFolder(account: Account, wanted: string): string {
  mkdirSync(wanted, { recursive: true, mode: 0o755 });
  if (canUse(account, wanted)) return wanted;
  const name = `filestore-postgres-${createHash('sha256').update(wanted).digest('hex').slice(0, 12)}`;
  const folder = join('/var/tmp', name);
  mkdirSync(folder, { recursive: true, mode: 0o755 });
  // The parent is shared and the name can be guessed, so another user may have created the folder.
  const entry = lstatSync(folder);
  if (!entry.isDirectory() || entry.uid !== process.getuid?.()) {
    throw new FilestoreError(
      'EMBEDDED_POSTGRES_FAILED',
      `${folder} belongs to another user, so the embedded Postgres cannot store its data there. Remove the folder.`,
    );
  }
  return folder;
}
