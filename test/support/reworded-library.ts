import { cpSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { copyStagedPackage, type StagedPackage } from './staged-package.ts';

const LIBRARY = join('node_modules', 'graphile-migrate');

/** A staged package whose graphile-migrate has another text in the place of one in dist/migration.js. */
export function copyWithRewordedLibrary(text: string, other: string): StagedPackage {
  const copy = copyStagedPackage({ without: ['graphile-migrate'] });
  cpSync(realpathSync(join(PACKAGE_ROOT, LIBRARY)), join(copy.folder, LIBRARY), { recursive: true });
  const file = join(copy.folder, LIBRARY, 'dist', 'migration.js');
  const code = readFileSync(file, 'utf8');
  if (!code.includes(text)) throw new Error(`${file} does not have "${text}"`);
  writeFileSync(file, code.replace(text, other));
  return copy;
}
