import { one, type Sql } from '../support/rows/nodes.ts';
import { type NodeRow, readNodes } from './known-nodes.ts';

const NAMES = ['a', 'b', 'c', 'new', 'img1', 'img2'];

/** A service that writes to random nodes while a scan is at work. */
export class Disturbances {
  /** The nodes that it wrote, as they were then. */
  readonly written = new Map<string, NodeRow>();
  /** All paths that those had. */
  readonly paths = new Set<string>();

  constructor(
    readonly sql: Sql,
    readonly mountKey: string,
    readonly random: () => number,
  ) {}

  /** Writes once, or is refused. */
  async write(): Promise<void> {
    const before = await readNodes(this.sql, this.mountKey);
    const known = new Map(before.map((row) => [row.id, row]));
    try {
      await this.#writeTo(before.filter(({ live, path }) => live && path !== ''));
    } catch (error) {
      if (!/^FS4/.test((error as { code?: string }).code ?? '')) throw error;
      return;
    }
    for (const row of await readNodes(this.sql, this.mountKey)) {
      const old = known.get(row.id);
      if (old?.version === row.version) continue;
      this.written.set(row.id, row);
      for (const path of [old?.path, row.path]) if (path !== undefined) this.paths.add(path);
    }
  }

  async #writeTo(nodes: readonly NodeRow[]): Promise<void> {
    const node = this.#pick(nodes);
    const directory = this.#pick(nodes.filter(({ kind }) => kind === 'directory'));
    if (node === undefined) return;
    const name = this.#pick(NAMES);
    const [text, values] = this.#pick([
      ['filestore.merge_metadata($1, $2)', [node.id, JSON.stringify({ random: this.random() })]],
      [
        'filestore.update_nodes($1)',
        [JSON.stringify([{ id: node.id, checksum: `sha256:${'1'.repeat(64)}` }])],
      ],
      ['filestore.delete_node($1, recursive => true)', [node.id]],
      ['filestore.move_node($1, new_name => $2)', [node.id, name]],
      ['filestore.move_node($1, $2)', [node.id, directory?.id]],
      [
        'filestore.upsert_file($1, $2, 77)',
        [this.mountKey, directory === undefined ? name : `${directory.path}/${name}`],
      ],
      ['filestore.upsert_file($1, $2, 78)', [this.mountKey, node.path]],
    ] as const) as readonly [string, readonly unknown[]];
    await one(this.sql, `select ${text}`, [...values]);
  }

  #pick<T>(values: readonly T[]): T | undefined {
    return values[Math.floor(this.random() * values.length)];
  }
}
