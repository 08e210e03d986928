import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { listedPackages, lockedPackages } from '../support/packages/packages.ts';

test('the SBOM lists the run-time dependencies of the lock file, and no others', () => {
  const listed = listedPackages();
  expect(listed).toEqual(
    lockedPackages(join(PACKAGE_ROOT, 'package-lock.json'), ({ dev, devOptional }) => !dev && !devOptional),
  );
  const { dependencies } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  for (const name of Object.keys(dependencies)) {
    expect([...listed]).toContainEqual(expect.stringContaining(`pkg:npm/${name}@`));
  }
});
