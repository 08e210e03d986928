import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { PACKAGE_ROOT } from '../../../src/package-root.ts';

/** An entry of a lock file. */
export interface LockedPackage {
  readonly version: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly optional?: boolean;
}

/** The packages in a lock file that are wanted, as package URLs without escapes. */
export function lockedPackages(
  file: string,
  wanted: (entry: LockedPackage) => boolean = () => true,
): ReadonlySet<string> {
  const lock: { readonly packages: Readonly<Record<string, LockedPackage>> } = JSON.parse(
    readFileSync(file, 'utf8'),
  );
  const packages = Object.entries(lock.packages).filter(([path, entry]) => path !== '' && wanted(entry));
  return new Set(
    packages.map(([path, { version }]) => `pkg:npm/${path.split('node_modules/').at(-1)}@${version}`),
  );
}

/** The packages that `npm run sbom` lists, in the same form. */
export function listedPackages(): ReadonlySet<string> {
  const output = execFileSync('npm', ['run', '--silent', 'sbom'], { cwd: PACKAGE_ROOT, encoding: 'utf8' });
  const { components }: { readonly components: readonly { readonly purl: string }[] } = JSON.parse(output);
  return new Set(components.map(({ purl }) => decodeURIComponent(purl)));
}
