import type { TestDatabase } from '../databases/test-database.ts';
import { one } from './nodes.ts';
import { directoryOf, type OldCatalogue, type OldNode } from './old-catalogue.ts';
import type { Row } from './staged.ts';
import type { Place } from './staged-catalogue.ts';

interface ServiceNode extends Place {
  readonly id: string;
  /** A node of the catalogue. */
  readonly parent: OldNode;
  readonly live: boolean;
  /** The paths of its versions. */
  readonly paths: string[];
}

/** Nodes that services create and delete in the directories of a catalogue that is imported, and that its tables do not have. */
export class ServiceNodes {
  private readonly database: TestDatabase;
  private readonly nodes: ServiceNode[] = [];

  constructor(database: TestDatabase) {
    this.database = database;
  }

  /** Creates a file, a directory and a tombstone in a live directory. */
  async createIn(parent: OldNode, catalogue: OldCatalogue): Promise<void> {
    for (const kind of ['file', 'directory', 'tombstone'] as const) {
      const name = `${kind} ${this.nodes.length}`;
      const path = `${catalogue.pathOf(parent)}/${name}`;
      const { id } = await one(this.database, 'select (filestore.create_node($1, $2, $3)).id::text', [
        parent.id,
        name,
        kind === 'directory' ? kind : 'file',
      ]);
      const live = kind !== 'tombstone';
      if (!live) await this.database.query('select filestore.delete_node($1)', [id]);
      this.nodes.push({
        ...{ id, parent, live, path, kind: kind === 'directory' ? kind : 'file' },
        paths: live ? [path] : [path, path],
      });
    }
  }

  /** Whether a directory holds one that is live, so that the catalogue must not delete it. */
  isPinned(node: OldNode): boolean {
    return this.nodes.some(({ parent, live }) => live && parent === node);
  }

  /** Gives each live one a version if its path has changed, as any move does, and returns how many. */
  follow(catalogue: OldCatalogue): number {
    const changed = this.live(catalogue).filter(({ path, paths }) => paths.at(-1) !== path);
    for (const { path, paths } of changed) paths.push(path);
    return changed.length;
  }

  live(catalogue: OldCatalogue): readonly ServiceNode[] {
    return this.nodes
      .filter(({ live }) => live)
      .map((node) => ({ ...node, path: `${catalogue.pathOf(node.parent)}/${node.path.split('/').at(-1)}` }));
  }

  expected(): readonly Row[] {
    return this.nodes.flatMap(({ id, live, kind, paths }) =>
      paths.map((path, index) => ({
        ...{ id, version: index + 1, path, parent_path: directoryOf(path), depth: path.split('/').length },
        directory_path: kind === 'directory' ? path : null,
        live: live || index < paths.length - 1,
        follows: true,
      })),
    );
  }

  /** Their versions, and whether each begins when the one before it ends. */
  async read(): Promise<readonly Row[]> {
    return this.database.query(
      `select v.id::text, v.version, v.path, v.parent_path, v.depth, v.directory_path, v.live,
              coalesce(v.valid_from = lag(v.valid_to) over (partition by v.id order by v.version), v.version = 1) as follows
       from filestore.view_filestore_node_versions v
       where v.id = any ($1) order by v.id, v.version`,
      [this.nodes.map(({ id }) => id)],
    );
  }
}
