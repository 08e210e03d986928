import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../src/package-root.ts';

test('each entry point has types for CommonJS, and for compilers that do not read "exports"', () => {
  const { exports, typesVersions } = JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8'));
  const { '.': main, './package.json': _, ...others } = exports;
  expect(main.require.types).toBe('./dist/commonjs/dist/index.d.ts');
  const names = Object.keys(others).map((entry) => entry.slice(2));
  expect(typesVersions['*']).toEqual(
    Object.fromEntries(names.map((name) => [name, [others[`./${name}`].types]])),
  );
  for (const { require } of Object.values<{ readonly require: { readonly types: string } }>(others)) {
    expect(require.types).toMatch(/^\.\/dist\/commonjs\//);
  }
});
