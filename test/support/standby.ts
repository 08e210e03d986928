import { execFileSync } from 'node:child_process';
import { chownSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { serverAccount } from '../../src/dev/embedded/account.ts';
import { type OwnServer, startOwnServer } from './own-server.ts';

/**
 * Starts a hot standby with the data that the primary has now, and the same passwords. It stays in recovery,
 * answers reads and hears nothing further of the primary, which restarts for the copy.
 */
export async function startStandby(primary: OwnServer): Promise<OwnServer> {
  await primary.shutDown('fast');
  try {
    return await startOwnServer({
      settings: [...primary.settings, 'hot_standby=on'],
      prepare: async (folder) => copyAsStandby(primary.folder, folder),
    });
  } finally {
    await primary.start();
  }
}

function copyAsStandby(primary: string, folder: string): void {
  // The files belong to the server's account, which Node's own copy would not keep.
  execFileSync('cp', ['-Rp', join(primary, 'server'), folder]);
  const signal = join(folder, 'server', 'data', 'standby.signal');
  writeFileSync(signal, '', { mode: 0o600 });
  const account = serverAccount();
  if (account.kind === 'nobody') chownSync(signal, account.uid, account.gid);
}
