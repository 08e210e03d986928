import { existsSync, readdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';

/** The folder of the system's initdb: TEST_POSTGRES_BIN, else Debian's newest, else the one in the PATH. */
export function systemBinaries(env: NodeJS.ProcessEnv): string {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : [];
  const folders = [
    ...(env.TEST_POSTGRES_BIN ? [env.TEST_POSTGRES_BIN] : []),
    ...versions.map((version) => join(debian, version, 'bin')),
    ...(env.PATH ?? '').split(delimiter),
  ];
  const found = folders.find((folder) => existsSync(join(folder, 'initdb')));
  if (found === undefined) throw new Error('initdb is not in the PATH');
  return found;
}
