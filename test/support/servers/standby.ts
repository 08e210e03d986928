import { execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { makeServerOwned, serverAccount } from '../../../src/testing/embedded/account.ts';
import { type OwnServer, startOwnServer } from './own-server.ts';

export interface StandbyOptions {
  /** Whether it gets further changes. Default: false. */
  readonly follows?: boolean;
}

/**
 * Starts a hot standby with the present data and passwords of the primary. It stays in recovery and
 * answers reads. The primary is restarted for the copy.
 */
export async function startStandby(
  primary: OwnServer,
  { follows = false }: StandbyOptions = {},
): Promise<OwnServer> {
  await primary.shutDown('fast');
  try {
    return await startOwnServer({
      settings: [...primary.settings, 'hot_standby=on', ...(follows ? connectionSettings(primary) : [])],
      prepare: async (folder) => copyAsStandby(primary.folder, folder),
    });
  } finally {
    await primary.start();
  }
}

function connectionSettings({ host, port, url }: OwnServer): readonly string[] {
  const { username, password } = new URL(url);
  return [
    `primary_conninfo=host=${host} port=${port} user=${username} password=${password}`,
    'wal_retrieve_retry_interval=200ms',
  ];
}

function copyAsStandby(primary: string, folder: string): void {
  const [from, to] = [join(primary, 'server'), join(folder, 'server')];
  makeServerOwned(to);
  makeServerOwned(join(to, 'data'));
  copyFileSync(join(from, 'password'), join(to, 'password'));
  // Run as the account that owns the data, since root would follow its links.
  execFileSync('cp', ['-Rp', `${join(from, 'data')}/.`, join(to, 'data')], {
    ...serverAccount(),
    cwd: '/',
  });
  putSignal(join(to, 'data', 'standby.signal'));
}

/** Creates an empty signal file that belongs to the server's account. */
export function putSignal(path: string): void {
  execFileSync('sh', ['-c', ': > "$0"', path], { ...serverAccount(), cwd: '/' });
}
