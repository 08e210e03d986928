import type { Client } from 'pg';
import { afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { databaseForFile } from '../databases/test-database.ts';
import { levelsForFile } from '../roles/roles.ts';
import { insertMount } from './nodes.ts';

export interface Disk {
  /** A connection of level `service`, the same for all tests of the file. */
  readonly service: Client;
  /** The key of an empty local mount. */
  readonly key: string;
  readonly mountId: string;
}

/** Gives each test a disk, and after it expects that `check_integrity` finds nothing. */
export function diskForEachTest(use: (disk: Disk) => void) {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);
  let service: Client;
  let mounts = 0;

  beforeAll(async () => {
    service = await connectAs('service');
  });
  beforeEach(async () => {
    mounts += 1;
    const key = `disk-${mounts}`;
    const mount = await insertMount(service, {
      mount_key: key,
      backend_kind: 'local',
      root_path: `/srv/${key}`,
    });
    use({ service, key, mountId: mount.id });
  });
  afterEach(async () => {
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  });
  return { database, connectAs };
}

/** A refusal by its reason, with a remedy. */
export const refusedBy = (code: string, constraint: string) => ({
  code,
  constraint,
  hint: expect.stringMatching(/\w{3}/),
});
