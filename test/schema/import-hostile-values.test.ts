import { beforeEach, describe, expect, test } from 'vitest';
import {
  createImportMount,
  type Fault,
  importDatabaseForEachTest,
  key,
  type Row,
  stage,
} from '../support/rows/staged.ts';

const database = importDatabaseForEachTest();

beforeEach(async () => {
  await createImportMount(database(), 'local');
});

const MOMENT = '2025-01-02T03:04:05.678Z';
const FUTURE = '2999-01-01Z';
const SECRET = { password: 'hunter2-Zq9x' };
const LONG = 'x'.repeat(1025);
const BEYOND = 2 ** 45;

/** Values that no row may have, by column. */
type Values = Readonly<Record<string, readonly unknown[]>>;

const CONTENT: Values = {
  size_bytes: [-1],
  checksum: ['', 'md5', 'MD5:00', `md5:${'0'.repeat(1100)}`],
  content_hash: [LONG],
  storage_class: ['x'.repeat(257)],
  link_target: ['', 'x'.repeat(4097)],
  metadata: [[], 'x', SECRET, { a: 'x'.repeat(70_000) }],
  last_modified_at: ['infinity', '-infinity', '10000-01-01Z'],
  backend_identity: ['', LONG],
};
const NAMES: readonly unknown[] = ['', '.', '..', 'x/y', 'a\u0001', 'a\u0085', LONG];
const PATHS: readonly unknown[] = [
  '/f',
  'f/',
  'a//f',
  '../f',
  './f',
  'a/../f',
  'a\u0001/f',
  'a\u007f/f',
  `a/${LONG}`,
];

const NODES: Values = {
  ...CONTENT,
  id: [null, -1, 0, BEYOND],
  parent_id: [-1, 999, 11, 'itself', BEYOND],
  kind: [null, '', 'link'],
  state: ['', 'lost'],
  version: [0, -1, 2 ** 31 - 1],
  created_at: [FUTURE, 'infinity', '-infinity', '0001-01-01 BC'],
  updated_at: [FUTURE, 'infinity', '-infinity', '0001-01-01 BC'],
  deleted_at: [FUTURE, 'infinity', '-infinity', '0001-01-01 BC'],
};
const VERSIONS: Values = {
  ...CONTENT,
  id: [null, -1, 0],
  version: [null, 0, -1, 2, 3, 2 ** 31 - 1, -(2 ** 31)],
  updated_at: [null, FUTURE, 'infinity', '-infinity', '2025-02-02Z'],
  parent_id: [-1, 11, 'itself', 2_000_000, BEYOND],
  state: ['', 'lost'],
  deleted_at: [FUTURE, 'infinity', '-infinity'],
  superseded_by_journal_id: [-5, 0, BEYOND],
  name: NAMES,
  path: ['', ...PATHS],
};
const ENTRIES: Values = {
  id: [null, -1, 0, BEYOND],
  command: ['', 'x'.repeat(5000)],
  status: [null, '', 'running'],
  created_at: [FUTURE, 'infinity', '0001-01-01 BC'],
  started_at: [FUTURE, '-infinity', '0001-01-01 BC'],
  completed_at: [FUTURE, 'infinity', '2024-01-01Z'],
  duration_ms: [-5],
  idempotency_key: ['', LONG],
  parameters: [SECRET],
  result: [SECRET],
  correlation_id: [LONG],
  principal: ['x'.repeat(5000)],
  affected_node_ids: ['{{1},{2}}', '{null}'],
};

/** Columns in which no value breaks a rule. */
const FREE = {
  nodes: [],
  snapshots: [],
  journal_entries: ['request_id', 'executor_kind', 'primary_node_id', 'secondary_node_id', 'error'],
} as const;

/** The tables to import from, and the columns that a staging table of each target has. */
const STAGED = [
  { table: 'nodes', target: 'nodes', values: { ...NODES, name: NAMES, path: PATHS } },
  { table: 'versions', target: 'snapshots', values: VERSIONS },
  { table: 'entries', target: 'journal_entries', values: ENTRIES },
] as const;

const DIRECTORY: Row = { id: 10, parent_id: null, name: 'a', kind: 'directory', updated_at: MOMENT };
const FILE: Row = { ...DIRECTORY, id: 11, parent_id: 10, name: 'f', kind: 'file' };
const NODE: Row = { ...FILE, created_at: '2025-01-01Z' };
const VERSION: Row = { id: 11, version: 1, updated_at: MOMENT };
const ENTRY: Row = {
  ...{ id: 1, command: 'c', status: 'succeeded' },
  ...{ created_at: MOMENT, started_at: MOMENT, completed_at: MOMENT },
};

/** Stages rows, those of versions with their nodes, and returns the ids that the dry run lists for this table. */
async function listed(
  table: string,
  rows: readonly Row[],
  mount: string,
): Promise<readonly (string | null)[]> {
  const changed = { version: 2, updated_at: '2025-02-02Z' };
  const nodes =
    table === 'versions'
      ? rows.map(({ id }) => ({ ...NODE, ...changed, id: id ?? 12, name: `n${id}` }))
      : rows;
  await stage(database(), 'nodes', table === 'entries' ? [DIRECTORY, FILE] : [DIRECTORY, FILE, ...nodes]);
  await stage(database(), 'versions', table === 'versions' ? rows : [{ ...VERSION, id: 10, version: 0 }]);
  await stage(database(), 'entries', table === 'entries' ? rows : [ENTRY]);
  const found = await database().query<Fault & Record<string, unknown>>(
    `select * from filestore.check_import('${mount}', 'old.nodes', 'old.versions', 'old.entries')`,
  );
  expect(JSON.stringify(found)).not.toContain('hunter2');
  return found.filter(({ staged }) => staged === table).map(({ id }) => id);
}

/** The values of these columns that the dry run does not list. */
async function missed(table: string, base: Row, values: Values, mount = key): Promise<readonly string[]> {
  const { id: ids = [], ...others } = values;
  const cases = Object.entries(others).flatMap(([column, list]) => list.map((value) => ({ column, value })));
  const rows = cases.map(({ column, value }, index) => {
    const id = 100 + index;
    const name = base.name === undefined ? {} : { name: `x${id}` };
    return { ...base, ...name, id, [column]: value === 'itself' ? id : value };
  });
  expect(await listed(table, [base], mount)).toEqual([]);
  const found = new Set(rows.length === 0 ? [] : await listed(table, rows, mount));
  const taken = cases
    .filter((_, index) => !found.has(`${100 + index}`))
    .map(({ column, value }) => `${column}: ${JSON.stringify(value)?.slice(0, 40)}`);
  for (const id of ids) {
    if ((await listed(table, [{ ...base, id }], mount)).length === 0) taken.push(`id: ${id}`);
  }
  return taken;
}

const elsewhere = () =>
  database()
    .query<{ id: string }>('select max(id) as id from filestore.nodes')
    .then(([row]) => row?.id);
describe('the dry run lists each value that breaks a rule', () => {
  test.each(STAGED)('of every column of $table', async ({ target, values }) => {
    const left =
      'valid_from valid_to backend_mount_id depth live parent_path parent_live directory_path root_of_mount_id';
    const derived = target === 'snapshots' ? [...left.split(' '), 'kind', 'created_at'] : left.split(' ');
    const columns = await database().query<{ name: string }>(
      `select attname as name from pg_attribute where attrelid = 'filestore.${target}'::regclass
       and attnum > 0 and not attisdropped and attname <> all ($1)`,
      [derived],
    );
    expect([...Object.keys(values), ...FREE[target]].sort()).toEqual(columns.map(({ name }) => name).sort());
  });

  test('in rows of nodes', async () => {
    const values = {
      ...NODES,
      name: [null, ...NAMES],
      parent_id: [...(NODES.parent_id ?? []), await elsewhere()],
    };
    expect(await missed('nodes', { ...NODE, id: 12, name: 'x' }, values)).toEqual([]);
  });

  test('in paths of tombstones with parents', async () => {
    const base = { ...NODE, id: 12, name: 'x', path: 'b/x', deleted_at: MOMENT };
    expect(await missed('nodes', base, { path: ['', ...PATHS] })).toEqual([]);
  });

  test('in versions', async () => {
    const { name = [], path = [], ...others } = VERSIONS;
    const values = { ...others, parent_id: [...(VERSIONS.parent_id ?? []), await elsewhere()] };
    expect(await missed('versions', { ...VERSION, id: 12 }, values)).toEqual([]);
    expect(await missed('versions', { ...VERSION, id: 12 }, { name })).toEqual([]);
    expect(await missed('versions', { ...VERSION, id: 12 }, { path })).toEqual([]);
  });

  test('in journal entries', async () => {
    expect(await missed('entries', ENTRY, ENTRIES)).toEqual([]);
  });

  test('in names on local mounts', async () => {
    await database().query(
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('disk', 'local', '/srv/disk')",
    );
    const names = { name: ['x'.repeat(256)] };
    expect(await missed('nodes', { ...NODE, id: 12, name: 'x' }, names, 'disk')).toEqual([]);
    expect(await missed('versions', { ...VERSION, id: 12 }, names, 'disk')).toEqual([]);
  });
});
