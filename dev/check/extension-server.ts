import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';

/** Where Debian's packages put servers, and what they share. */
const PROGRAMS = '/usr/lib/postgresql';
const SHARED = '/usr/share/postgresql';
const FIRST_SUPPORTED = 15;

/** Folder of the newest server of this machine that offers an extension; undefined when none does. */
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
