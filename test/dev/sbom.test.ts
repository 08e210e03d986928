import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';

interface Locked {
  readonly version: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
}

test('the SBOM lists the run-time dependencies of the lock file, and no others', () => {
  const output = execFileSync('npm', ['run', '--silent', 'sbom'], { cwd: PACKAGE_ROOT, encoding: 'utf8' });
  const { bomFormat, components }: { bomFormat: string; components: readonly { purl: string }[] } =
    JSON.parse(output);
  const lock: { readonly packages: Readonly<Record<string, Locked>> } = JSON.parse(
    readFileSync(join(PACKAGE_ROOT, 'package-lock.json'), 'utf8'),
  );
  const expected = Object.entries(lock.packages)
    .filter(([path, { dev, devOptional }]) => path !== '' && !dev && !devOptional)
    .map(([path, { version }]) => `pkg:npm/${path.split('node_modules/').at(-1)}@${version}`);

  expect(bomFormat).toBe('CycloneDX');
  const listed = components.map(({ purl }) => decodeURIComponent(purl));
  expect([...listed].sort()).toEqual([...new Set(expected)].sort());
  for (const name of Object.keys(
    JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')).dependencies,
  )) {
    expect(listed).toContainEqual(expect.stringContaining(`pkg:npm/${name}@`));
  }
  expect(output).not.toContain('pkg:npm/vitest@');
});
