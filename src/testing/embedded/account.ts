import { execFileSync, spawnSync } from 'node:child_process';
import { chownSync, mkdirSync } from 'node:fs';

/** An account as options of child_process. Empty: the user of this process. */
export interface Account {
  readonly uid?: number;
  readonly gid?: number;
}

/**
 * The account that runs servers. Postgres refuses to run as root, so root runs it as `nobody`, which every Unix has.
 */
export function serverAccount(): Account {
  if (process.getuid?.() !== 0) return {};
  const number = (flag: string) => Number(execFileSync('id', [flag, 'nobody'], { encoding: 'utf8' }));
  return { uid: number('-u'), gid: number('-g') };
}

/** Makes the account of servers the owner of a file or folder. */
export function giveToServer(path: string): void {
  const { uid, gid } = serverAccount();
  if (uid !== undefined && gid !== undefined) chownSync(path, uid, gid);
}

/** Creates a folder that belongs to the account of servers and is closed to others. */
export function makeServerOwned(path: string): void {
  mkdirSync(path, { mode: 0o700 });
  giveToServer(path);
}

/** Whether the account of servers can reach a path, tested by trying: `nobody` cannot reach a folder below /root. */
export function serverCanUse(path: string): boolean {
  return spawnSync('test', ['-x', path], { ...serverAccount(), cwd: '/', stdio: 'ignore' }).status === 0;
}
