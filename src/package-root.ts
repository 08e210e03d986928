import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { paragraph } from './text.ts';

/** Folder of this package. src/ and dist/ are at the same depth below it. */
export const PACKAGE_ROOT: string = fileURLToPath(new URL('..', import.meta.url));

/** The folder of the package's migrations. */
export const MIGRATIONS_FOLDER: string = join(PACKAGE_ROOT, 'migrations');

/** The file with graphile-migrate's settings. */
export const CONFIG_FILE: string = join(PACKAGE_ROOT, '.gmrc');

/** A command as its user types it: by the scripts of a checkout, or where the package is installed. */
export function typedCommand(command: 'migrate' | 'verify'): string {
  return existsSync(join(PACKAGE_ROOT, 'dev'))
    ? `npm run db:${command}:filestore`
    : `npx --no-install filestore-db ${command}`;
}

/** What to do if a file of the package is missing. In a bundle, this code is in a file with another name. */
export const RESTORE_PACKAGE: string = /\/package-root\.[jt]s$/.test(import.meta.url)
  ? 'Install the package again.'
  : paragraph(
      'This program is a bundle, which lacks the files of the package:',
      'mark @apphub/filestore as external in the bundler, and install it.',
    );
