import type pg from 'pg';
import type * as Calls from '../../../src/sql/index.ts';
import { mulberry32 } from '../mulberry32.ts';
import type { FilledMount } from './fill-mount.ts';

/** A version of a file that the server acknowledged. */
export interface WrittenVersion {
  readonly id: string;
  readonly version: number;
  readonly size: number;
}

/** The writes of a writer that the servers acknowledged. */
export interface Acknowledged {
  readonly versions: readonly WrittenVersion[];
  /** Nodes that it deleted, which may be purged. */
  readonly deletedIds: readonly string[];
  /** Idempotency keys of commands that succeeded. */
  readonly commandKeys: readonly string[];
  readonly seenIds: readonly string[];
}

export type Operation = (client: pg.Client) => Promise<void>;

/** Chooses operations on files in one directory, and records each answer of the server. */
export class FileWriter {
  readonly #files = new Map<string, string>();
  readonly #versions: WrittenVersion[] = [];
  readonly #deletedIds: string[] = [];
  readonly #commandKeys: string[] = [];
  readonly #seenIds = new Set<string>();
  readonly #random: () => number;
  #count = 0;

  constructor(
    /** The typed calls of the package that the service uses. */
    readonly calls: typeof Calls,
    readonly mount: FilledMount,
    readonly directoryId: string,
    readonly index: number,
  ) {
    this.#random = mulberry32(index + 1);
  }

  acknowledged(): Acknowledged {
    return {
      versions: this.#versions,
      deletedIds: this.#deletedIds,
      commandKeys: this.#commandKeys,
      seenIds: [...this.#seenIds],
    };
  }

  /** Chooses an operation that can be repeated on the other server if it is refused. */
  choose(): Operation {
    this.#count += 1;
    const number = this.#count;
    const ids = [...this.#files.keys()];
    const id = ids[Math.floor(this.#random() * ids.length)];
    if (id === undefined) return this.#create(number);
    const share = this.#random();
    if (share < 0.3) return this.#create(number);
    if (share < 0.4) return this.#insert(number);
    if (share < 0.65) return this.#overwrite(id, number);
    if (share < 0.75) return this.#command(id, number);
    if (share < 0.83) return this.#upsert(id, number);
    if (share < 0.89) return this.#rename(id, number);
    if (share < 0.94) return this.#see(id);
    if (share < 0.98) return this.#delete(id);
    return this.#renameDirectory(number);
  }

  /** Does each kind of operation once: the first one of a session compiles the functions that it calls. */
  async doEach(client: pg.Client): Promise<void> {
    await this.#create(this.index)(client);
    const [id = ''] = this.#files.keys();
    await this.#overwrite(id, 1)(client);
    await this.#command(id, 2)(client);
    await this.#upsert(id, 3)(client);
    await this.#rename(id, this.index)(client);
    await this.#see(id)(client);
    await this.#delete(id)(client);
  }

  #keep(row: { readonly id: string; readonly version: number; readonly size_bytes: string }): void {
    this.#versions.push({ id: row.id, version: row.version, size: Number(row.size_bytes) });
  }

  readonly #create = (number: number) => async (client: pg.Client) => {
    const node = await this.calls.createNode(client, {
      parentId: this.directoryId,
      name: `new-${number}`,
      sizeBytes: number,
    });
    this.#files.set(node.id, node.name);
    this.#keep(node);
  };

  /** Every second one in a transaction that stays open for a moment, so that some are open at the cut-over. */
  readonly #insert = (number: number) => async (client: pg.Client) => {
    const staysOpen = number % 2 === 0;
    if (staysOpen) await client.query('begin');
    const { rows } = await client.query(
      `insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes)
       values ($1, $2, $3, 'file', $4) returning *`,
      [this.mount.id, this.directoryId, `plain-${number}`, number],
    );
    if (staysOpen) await client.query('select pg_sleep(0.1); commit');
    this.#files.set(rows[0].id, rows[0].name);
    this.#keep(rows[0]);
  };

  readonly #overwrite = (id: string, number: number) => async (client: pg.Client) => {
    const { rows } = await client.query(
      'update filestore.nodes set size_bytes = $2, metadata = $3 where id = $1 returning *',
      [id, number, { number, text: 'x'.repeat(number % 100) }],
    );
    this.#keep(only(rows, id));
  };

  readonly #command = (id: string, number: number) => async (client: pg.Client) => {
    const idempotencyKey = `${this.mount.key}-${this.index}-${number}`;
    const { entry } = await this.calls.beginCommand(client, {
      command: 'overwrite',
      mountId: this.mount.id,
      idempotencyKey,
      primaryNodeId: id,
    });
    await client.query('begin');
    await this.calls.beginWork(client, { entryId: entry.id });
    const { rows } = await client.query(
      'update filestore.nodes set size_bytes = $2 where id = $1 returning *',
      [id, -1 + number * 1000],
    );
    await this.calls.finishCommand(client, { entryId: entry.id, status: 'succeeded', result: { number } });
    await client.query('commit');
    this.#keep(only(rows, id));
    this.#commandKeys.push(idempotencyKey);
  };

  readonly #upsert = (id: string, number: number) => async (client: pg.Client) => {
    const { rows } = await client.query('select path from filestore.nodes where id = $1', [id]);
    const { path } = only(rows, id);
    this.#keep(
      await this.calls.upsertFile(client, { mountKey: this.mount.key, path, sizeBytes: number * 7 }),
    );
  };

  readonly #rename = (id: string, number: number) => async (client: pg.Client) => {
    this.#keep(await this.calls.moveNode(client, { nodeId: id, newName: `renamed-${number}` }));
  };

  readonly #see = (id: string) => async (client: pg.Client) => {
    await this.calls.recordSightings(client, { nodeIds: [id] });
    this.#seenIds.add(id);
  };

  readonly #delete = (id: string) => async (client: pg.Client) => {
    await this.calls.deleteNode(client, { nodeId: id });
    this.#files.delete(id);
    this.#seenIds.delete(id);
    this.#deletedIds.push(id);
  };

  readonly #renameDirectory = (number: number) => async (client: pg.Client) => {
    await this.calls.moveNode(client, {
      nodeId: this.directoryId,
      newName: `writer-${this.index}-${number}`,
    });
  };
}

/** The row of a node that a server has acknowledged, and must have. */
function only<Row>(rows: readonly Row[], id: string): Row {
  const [row] = rows;
  if (row === undefined) throw new Error(`there is no node ${id}`);
  return row;
}
