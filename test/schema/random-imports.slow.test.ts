import { expect, test } from 'vitest';
import { mulberry32 } from '../support/mulberry32.ts';
import { one } from '../support/rows/nodes.ts';
import { OldCatalogue } from '../support/rows/old-catalogue.ts';
import { ServiceNodes } from '../support/rows/service-nodes.ts';
import { importDatabaseForEachTest, key, stage } from '../support/rows/staged.ts';
import {
  COLUMNS,
  compare,
  expectHorizon,
  expectNodes,
  expectTotals,
  expectVersions,
  stageNodes,
  stageVersions,
} from '../support/rows/staged-catalogue.ts';

const database = importDatabaseForEachTest();
const TABLES = "'old.nodes', 'old.versions', 'old.entries'";

const rootId = async () =>
  (
    await one(
      database(),
      'select n.id from filestore.nodes n join filestore.backend_mounts m on m.id = n.root_of_mount_id where m.mount_key = $1',
      [key],
    )
  ).id as string;

/** What the mount has of the catalogue, whose ids are low, and all of its totals. */
async function read() {
  const list = COLUMNS.map((name) => `n.${name}`).join(', ');
  const totals = await database().query<{ path: string }>(
    `select d.path, d.size_bytes::int as size, d.file_count::int as files, d.dir_count::int as directories, d.child_count::int as children
     from filestore.view_filestore_directories d where d.mount_key = $1`,
    [key],
  );
  const { horizon } = await one(
    database(),
    'select history_horizon as horizon from filestore.backend_mounts where mount_key = $1',
    [key],
  );
  return {
    nodes: await database().query(`select ${list} from filestore.nodes n where n.id < 10000 order by n.id`),
    versions: await database().query(
      `select ${list}, n.valid_from, n.valid_to, n.superseded_by_journal_id from filestore.snapshots n
       where n.id < 10000 order by n.id, n.version`,
    ),
    totals: [...totals].sort((a, b) => compare(a.path, b.path)),
    entries: await database().query(
      "select id::int, created_at from filestore.journal_entries where command = 'old' order by id",
    ),
    horizon,
  };
}

const lastImport = () =>
  one(
    database(),
    `select nodes::int, versions::int, entries::int, refused::int, transaction_id, finished_at is null as runs,
            to_regclass('pg_temp.filestore_import_nodes') as temporary
     from filestore.imports order by id desc limit 1`,
  );
const NOTHING = {
  nodes: 0,
  versions: 0,
  entries: 0,
  refused: 0,
  transaction_id: null,
  runs: false,
  temporary: null,
};

/** A catalogue that is imported, with its log, and with nodes of which the first versions are not staged. */
class Scene {
  readonly catalogue: OldCatalogue;
  readonly services = new ServiceNodes(database());
  readonly first = new Map<number, number>();
  private readonly way: 'paths' | 'parents';
  private horizon: Date | null = null;
  private entries = 0;

  constructor(way: 'paths' | 'parents', seed: number) {
    this.way = way;
    this.catalogue = new OldCatalogue(mulberry32(seed), { movesDirectories: way === 'parents' });
  }

  /** Changes the catalogue, and leaves out the first versions of some of the new nodes. */
  change(changes: number): void {
    for (let change = 0; change < changes; change += 1) {
      this.catalogue.change((node) => this.services.isPinned(node));
    }
    for (const { id, now } of this.catalogue.nodes) {
      if (!this.first.has(id))
        this.first.set(id, this.catalogue.chance(0.3) ? now.version : Math.min(now.version, id % 3));
    }
  }

  private async stage(): Promise<void> {
    this.entries += 5;
    await stage(database(), 'nodes', stageNodes(this.catalogue, this.way));
    await stage(database(), 'versions', stageVersions(this.catalogue, this.first));
    await stage(
      database(),
      'entries',
      this.log(({ id, created_at }) => ({
        ...{ id, command: 'old', status: 'canceled', created_at: created_at.toISOString() },
      })),
    );
  }

  private log<Entry>(entry: (row: { id: number; created_at: Date }) => Entry): readonly Entry[] {
    return Array.from({ length: this.entries }, (_, index) =>
      entry({ id: 1 + index, created_at: new Date(Date.UTC(2024, 0, 1 + index)) }),
    );
  }

  private async expected() {
    const late = expectHorizon(this.catalogue, this.first);
    // It does not move back when earlier versions follow.
    this.horizon = new Date(Math.max(Number(late), Number(this.horizon)));
    return {
      nodes: expectNodes(this.catalogue, await rootId()),
      versions: expectVersions(this.catalogue, await rootId(), this.first),
      totals: expectTotals(this.catalogue, this.services.live(this.catalogue)),
      entries: this.log((row) => row),
      horizon: Number(this.horizon) === 0 ? null : this.horizon,
    };
  }

  /** Imports the catalogue as it is, and expects its rows in the mount, also after the same call again. */
  async import(batch: number): Promise<void> {
    await this.stage();
    expect(
      await database().query(
        `select id, version, reason, problem from filestore.check_import('${key}', ${TABLES})`,
      ),
    ).toEqual([]);
    const known = await read();
    const expected = await this.expected();
    const changed = expected.nodes.filter(
      ({ id, version }) => !known.nodes.some((node) => node.id === id && node.version === version),
    );
    await database().query(`call filestore.import_nodes('${key}', ${TABLES}, batch => ${batch})`);
    expect(await lastImport()).toEqual({
      ...NOTHING,
      nodes: changed.length + this.services.follow(this.catalogue),
      versions: expected.versions.length - known.versions.length,
      entries: expected.entries.length - known.entries.length,
    });
    expect(await read()).toEqual(expected);
    expect(await this.services.read()).toEqual(this.services.expected());

    await database().query(`call filestore.import_nodes('${key}', ${TABLES})`);
    expect(await lastImport()).toEqual(NOTHING);
    expect(await read()).toEqual(expected);
    expect(await database().query('select * from filestore.check_integrity()')).toEqual([]);
  }
}

test.each([
  ['parents', 1],
  ['parents', 2],
  ['paths', 3],
] as const)('passes of a catalogue with %s end with all of its rows (seed %i)', async (way, seed) => {
  const scene = new Scene(way, seed);
  const { catalogue, services } = scene;
  for (const changes of [40, 30, 20]) {
    scene.change(changes);
    if (changes === 20) scene.first.clear();
    await scene.import(1 + seed * 2);
    for (const directory of catalogue.shuffle(catalogue.liveDirectories()).slice(0, 2))
      await services.createIn(directory, catalogue);
  }
});
