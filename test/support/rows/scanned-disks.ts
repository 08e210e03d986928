import type { Client } from 'pg';
import { afterEach, beforeAll, beforeEach, expect } from 'vitest';
import { databaseForFile } from '../databases/test-database.ts';
import { levelsForFile } from '../roles/roles.ts';
import { insertMount, one } from './nodes.ts';
import { type Entry, readIds, readStates, scan, scanTwice } from './scans.ts';

export interface Disk {
  /** A connection of level `service`, the same for all tests of the file. */
  readonly service: Client;
  /** The key of an empty local mount. */
  readonly key: string;
  readonly mountId: string;
}

/** Gives each test a disk, and after it expects that `check_integrity` finds nothing. */
export function diskForEachTest(use: (disk: Disk) => void = () => undefined) {
  const database = databaseForFile();
  const connectAs = levelsForFile(database);
  let service: Client;
  let key: string;
  let mounts = 0;

  beforeAll(async () => {
    service = await connectAs('service');
  });
  beforeEach(async () => {
    mounts += 1;
    key = `disk-${mounts}`;
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
  return {
    database,
    connectAs,
    /** Scans of the whole disk, of a subtree, or of one directory. */
    everything: (...entries: readonly Entry[]) => scan(service, key, entries),
    tree: (path: string, ...entries: readonly Entry[]) => scan(service, key, entries, { path }),
    onlyIn: (path: string, ...entries: readonly Entry[]) =>
      scan(service, key, entries, { path, isRecursive: false }),
    /** Scans the whole disk twice: the second time, nothing changes. */
    follow: (...entries: readonly Entry[]) => scanTwice(service, key, entries),
    ids: () => readIds(service, key),
    states: () => readStates(service, key),
    /** The live node at a path. */
    node: (path: string) => one(service, 'select * from filestore.node_by_path($1, $2)', [key, path]),
  };
}

/** A refusal by its reason, with a remedy. */
export const refusedBy = (code: string, constraint: string) => ({
  code,
  constraint,
  hint: expect.stringMatching(/\w{3}/),
});
