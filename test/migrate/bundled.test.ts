import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { databaseForFile } from '../support/databases/test-database.ts';

const database = databaseForFile();
const folder = mkdtempSync(join(tmpdir(), 'filestore-bundle-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('the message of a bundled service says to mark the package as external', async () => {
  const { build } = await import('vite');
  await build({
    root: PACKAGE_ROOT,
    configFile: false,
    logLevel: 'silent',
    ssr: { noExternal: true },
    build: {
      ssr: join(PACKAGE_ROOT, 'src', 'index.ts'),
      outDir: folder,
      emptyOutDir: false,
      rollupOptions: { output: { entryFileNames: 'bundle.mjs' } },
    },
  });
  const bundle: typeof import('../../src/index.ts') = await import(
    pathToFileURL(join(folder, 'bundle.mjs')).href
  );
  await expect(bundle.assertMigrated({ connectionString: database().url })).rejects.toMatchObject({
    code: 'MIGRATIONS_MISSING',
    message: expect.stringMatching(/This program is a bundle.*mark @apphub\/filestore as external/),
  });
});
