import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll } from 'vitest';
import { installPackage, type PackedService } from './installed-package.ts';

/** Packs the package before the tests of a file, and removes the service after them. */
export function packedServiceForFile(): () => PackedService {
  let service: PackedService | undefined;
  beforeAll(async () => {
    service = await installPackage(mkdtempSync(join(tmpdir(), 'filestore-service-')));
  });
  afterAll(() => {
    if (service !== undefined) rmSync(service.folder, { recursive: true, force: true });
  });
  return () => {
    if (service === undefined) throw new Error('the package is packed before the first test');
    return service;
  };
}
