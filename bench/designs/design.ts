import type { Client } from 'pg';

/** A statement with its values; the same text is prepared once in a session. */
export interface Query {
  readonly text: string;
  readonly values: readonly unknown[];
}

export const query = (text: string, ...values: readonly unknown[]): Query => ({ text, values });

/** A directory or file of the generated tree. Ids are the same in every design. */
export interface Place {
  readonly id: string;
  readonly mountId: string;
  readonly parentId: string;
  readonly name: string;
  readonly path: string;
}

/** SQL expressions for a new directory. `parentPath` is for a table that derives nothing. */
export interface NewDirectory {
  readonly mountId: string;
  readonly parentId: string;
  readonly parentPath: string;
  readonly name: string;
}

/** The same for a new file. */
export interface NewFile extends NewDirectory {
  readonly sizeBytes: string;
}

export interface Mount {
  readonly mountId: string;
  readonly rootId: string;
}

/** What a report says about a design. */
export interface DesignFacts {
  /** `this`, `twin`, or the letter of an alternative. */
  readonly key: string;
  /** An alternative's with its letter: `(b) full path`. */
  readonly title: string;
  /** Of its bars in plots. People who do not see red and green must be able to tell it from the others (Okabe and Ito). */
  readonly color: string;
  /** Operations that the design is chosen for: a schema of general use may be up to 1.5 times slower there. */
  readonly specialities: readonly string[];
  /** Of an alternative: what it is, and what it does not give, whatever it costs. */
  readonly description?: { readonly is: string; readonly lacks: string };
}

/**
 * A way to keep a catalogue of files in Postgres. An operation that is left out is one that the design is not measured
 * on. Reads return the same columns in every design, so a test can compare them.
 */
export interface Design extends DesignFacts {
  /** Schema of all its tables, which is dropped at the end. */
  readonly schema: string;
  /** Its table of nodes, the column of the mount there, and the condition of a live row. */
  readonly nodes: { readonly table: string; readonly mount: string; readonly live: string };

  /** Why it cannot be measured on this server; null when it can. */
  unavailable?(client: Client): Promise<string | null>;
  setUp(client: Client): Promise<void>;
  /** Loads bench.nodes in the fastest way that keeps the indexes. Left out where setUp also fills the tables. */
  load?(client: Client): Promise<void>;
  /** What a worker does beside the writers; nothing in most designs. */
  settle?(client: Client): Promise<void>;

  /** A node by id: the ruler. Returns id, kind, size_bytes, version. */
  byId(id: string): Query;
  /** The live node at a path. Returns id, kind, size_bytes, version. */
  resolve?(mountId: string, path: string): Query;
  /** The same, or the tombstone that was deleted last. */
  resolveDeleted?(mountId: string, path: string): Query;
  /** Children in order of name. Returns name, kind, size_bytes. */
  page?(directory: Place, afterName: string, limit: number): Query;
  /** Counts the live nodes below. Returns size_bytes, file_count, dir_count. */
  subtreeSum?(top: Place): Query;
  /** Exact totals, as cheaply as the design can. Returns size_bytes, file_count, dir_count. */
  totals?(directory: Place): Query;
  /** The same for many. Returns node_id, size_bytes, file_count, dir_count in order of node_id. */
  totalsList?(directories: readonly Place[]): Query;
  /** Live files with a checksum. Returns id. */
  byChecksum?(checksum: string): Query;
  /** The 20 checksums with the most copies. Returns checksum, copies. */
  duplicates?(mountId: string): Query;
  /** Live nodes whose metadata contain a value. Returns id. */
  byMetadata?(contained: string): Query;
  /** The 20 largest live files. Returns id. */
  largest?(mountId: string): Query;
  /** The first 100 inconsistent or missing nodes. Returns id. */
  reconcileQueue?(mountId: string): Query;

  /** An insert of one file; refused below a deleted directory. */
  create?(file: NewFile): string;
  /** The same of one directory. */
  createDirectory?(directory: NewDirectory): string;
  /** New content of one file; arguments are SQL expressions. */
  overwrite?(nodeId: string, sizeBytes: string): string;
  /** Leaves the tombstone of one file; the argument is an SQL expression. */
  deleteFile?(nodeId: string): string;
  /** Files from a JSON array of objects: parent_id, name, size_bytes, checksum, metadata. */
  createBatch?(files: string): Query;
  /** Inserts the files of bench.more, with the label at the end of each name. */
  bulkInsert?(label: string): Query;
  /** Records that nodes were seen. */
  heartbeat?(ids: readonly string[]): Query;
  /** Leaves tombstones of files. */
  deleteFiles?(ids: readonly string[]): Query;
  move?(node: Place, newParent: Place, newName: string): Query;
  deleteTree?(top: Place): Query;
  /** Brings back what deleteTree deleted. */
  restoreTree?(top: Place): Query;
  copyTree?(top: Place, newParentId: string, newName: string): Query;
  /** Removes the oldest tombstones for good. Returns removed. */
  purge?(limit: number): Query;
  createMount?(client: Client, key: string): Promise<Mount>;
  eraseMount?(client: Client, mount: Mount): Promise<void>;

  /** Counts rows that the design derives from others and that are wrong. Returns wrong. */
  wrongRows?(mountId: string): Query;
}

/** This schema, or its twin: neither is an alternative to it. */
export const isOwn = ({ key }: Pick<DesignFacts, 'key'>) => key === 'this' || key === 'twin';

export function factsOf({ key, title, color, specialities, description }: Design): DesignFacts {
  return { key, title, color, specialities, ...(description && { description }) };
}
