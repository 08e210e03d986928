import type { Client, QueryResultRow } from 'pg';
import {
  CONTENT_COLUMNS,
  type Content,
  type ContentColumn,
  isLive,
  isLiveDirectory,
  isRoot,
  type Mount,
  NO_CONTENT,
  type Node,
} from './node.ts';
import type { Model } from './plain-model.ts';
import type { Random } from './random-choices.ts';

export type Rows = readonly QueryResultRow[];

export interface Operation {
  readonly name: string;
  /** A description, for the message of a failure. */
  readonly text: string;
  run(sql: Client): Promise<Rows>;
  /** It must be the first to write in its transaction. It changes no version, so no journal entry belongs to it. */
  readonly isFirstWrite?: boolean;
  /** Does the same to the model, or refuses. Throws when the returned rows are wrong. */
  expect(rows: Rows): void;
}

/** What an operation chooses its nodes from. */
export interface Choice {
  readonly model: Model;
  readonly random: Random;
}

/** One statement. The model gets the returned rows. */
export function statement(
  name: string,
  text: string,
  values: readonly unknown[],
  expect: (rows: Rows) => void,
): Operation {
  return {
    name,
    text: text.replace(/\s+/g, ' ').replace(/\$(\d+)/g, (_, place) => literal(values[Number(place) - 1])),
    run: async (sql) => (await sql.query(text, [...values])).rows,
    expect,
  };
}

/** A value in a form that can be pasted into psql. */
function literal(value: unknown): string {
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) return `'{${value}}'`;
  return typeof value === 'number' || typeof value === 'boolean' ? `${value}` : `'${value}'`;
}

/** Compares the node that a function returned with the model's. */
export function expectNode(model: Model, [row]: Rows, id: number): void {
  const node = model.nodes.get(id);
  const found = `${row?.id} version ${row?.version} ${row?.state} "${row?.path}"`;
  const expected = `${id} version ${node?.version} ${node?.state} "${node?.path}"`;
  if (found !== expected) throw new Error(`returned node ${found} instead of ${expected}`);
}

export function expectNumber(found: unknown, expected: number): void {
  if (Number(found) !== expected) throw new Error(`returned ${found} instead of ${expected}`);
}

/** Few names, so that they collide, and some with bytes next to "/". */
const NAMES = ['a', 'b', 'c', 'a0', 'a.', 'a!b'] as const;
const BAD_NAMES = ['', '.', '..', 'a/b', 'a\tb', 'x'.repeat(1025)] as const;
/** Too long for a local mount, but not for S3. */
const LONG_NAME = 'x'.repeat(300);
const NOBODY = 999_999;

export function anyName({ random }: Choice): string {
  if (random.chance(0.02)) return random.pick(BAD_NAMES);
  return random.chance(0.01) ? LONG_NAME : random.pick(NAMES);
}

export const liveNodes = ({ model }: Choice): Node[] =>
  [...model.nodes.values()].filter((node) => isLive(node) && !isRoot(node));

const tombstones = ({ model }: Choice): Node[] => [...model.nodes.values()].filter((node) => !isLive(node));

function idOf(choice: Choice, nodes: readonly Node[]): number {
  return nodes.length > 0 ? choice.random.pick(nodes).id : NOBODY;
}

/** Mostly a live node; sometimes a tombstone, a root or an unknown id. */
export function anyNode(choice: Choice, kind?: Node['kind']): number {
  const roll = choice.random.next();
  if (roll < 0.02) return NOBODY;
  if (roll < 0.04) return idOf(choice, [...choice.model.nodes.values()].filter(isRoot));
  if (roll < 0.1) return idOf(choice, tombstones(choice));
  return idOf(
    choice,
    liveNodes(choice).filter((node) => kind === undefined || node.kind === kind),
  );
}

/** Mostly one whose parent is live, so that it can be restored with its tree. */
export function anyTombstone(choice: Choice): number {
  const { model, random } = choice;
  if (random.chance(0.05)) return anyNode(choice);
  const all = tombstones(choice);
  const restorable = all.filter((node) => model.nodes.get(node.parentId ?? 0)?.deletion === null);
  const directories = restorable.filter((node) => node.kind === 'directory');
  return idOf(choice, random.pick([all, restorable, directories]));
}

/** Mostly a live directory of the mount, its root included; sometimes any other node. */
export function anyParent(choice: Choice, mountId?: number): number {
  const { model, random } = choice;
  if (random.chance(0.08)) return random.chance(0.2) ? NOBODY : idOf(choice, [...model.nodes.values()]);
  const directories = [...model.nodes.values()].filter(isLiveDirectory);
  return idOf(
    choice,
    directories.filter((node) => mountId === undefined || node.mountId === mountId),
  );
}

/** The mount of a node; any mount when there is no such node. */
export function mountOf({ model, random }: Choice, id: number): Mount {
  const mountId = model.nodes.get(id)?.mountId;
  return model.mounts.find((mount) => mount.id === mountId) ?? random.pick(model.mounts);
}

/** An expected version: mostly null or the right one, sometimes another. */
export function anyExpectedVersion({ model, random }: Choice, id: number): number | null {
  if (random.chance(0.6)) return null;
  return (model.nodes.get(id)?.version ?? 1) + (random.chance(0.15) ? random.pick([-1, 1]) : 0);
}

const VALUES: Readonly<Record<ContentColumn, readonly (string | null)[]>> = {
  size_bytes: ['0', '1', '10', '200', '3000'],
  checksum: [null, `sha256:${'00ff'.repeat(16)}`, `sha256:${'ab12'.repeat(16)}`],
  content_hash: [null, '"etag-1"', '"etag-2"'],
  storage_class: [null, 'STANDARD_IA'],
  metadata: ['{}', '{"tag": 1}', '{"tag": 2}'],
  last_modified_at: [null, '2024-01-01 00:00:00+00', '2024-05-05 05:05:05.005+00'],
  backend_identity: [null, 'i1', 'i2', 'i3'],
};

/** Some content columns of a node. The size of a directory is mostly the valid one. */
export function anyContent({ random }: Choice, kind: Node['kind'] | undefined): Partial<Content> {
  const columns = random.some(CONTENT_COLUMNS, 1 + random.below(3));
  const values = columns.map((column) => {
    const empty = kind === 'directory' && column === 'size_bytes' && random.chance(0.9);
    return [column, empty ? '0' : random.pick(VALUES[column])];
  });
  return Object.fromEntries(values) as Partial<Content>;
}

export const fullContent = (choice: Choice, kind: Node['kind']): Content => ({
  ...NO_CONTENT,
  ...anyContent(choice, kind),
});
