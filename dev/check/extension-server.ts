import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Folders of Debian's packages for servers and for their shared files. */
const PROGRAMS = '/usr/lib/postgresql';
const SHARED = '/usr/share/postgresql';
const FIRST_SUPPORTED = 15;

/** Folder of the newest installed server that has an extension; undefined if none has it. */
export function findServerWith(extension: string): string | undefined {
  const versions = existsSync(PROGRAMS) ? readdirSync(PROGRAMS).map(Number) : [];
  const found = versions
    .filter((version) => version >= FIRST_SUPPORTED)
    .toSorted((a, b) => b - a)
    .find((version) => {
      const control = join(SHARED, String(version), 'extension', `${extension}.control`);
      return existsSync(control) && existsSync(join(PROGRAMS, String(version), 'bin', 'initdb'));
    });
  return found === undefined ? undefined : join(PROGRAMS, String(found), 'bin');
}
