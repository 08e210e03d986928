import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

export const MIGRATIONS_FOLDER = join(PACKAGE_ROOT, 'migrations');
/** graphile-migrate's settings. */
export const CONFIG_FILE = join(PACKAGE_ROOT, '.gmrc');
