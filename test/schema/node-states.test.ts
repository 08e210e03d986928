import { describe, expect, test } from 'vitest';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, createNode, one } from '../support/rows/nodes.ts';

const database = databaseForFile();

const STATES = ['active', 'inconsistent', 'missing', 'deleted'] as const;
type State = (typeof STATES)[number];

const LEGAL: Readonly<Record<State, readonly State[]>> = {
  active: ['inconsistent', 'missing', 'deleted'],
  inconsistent: ['active', 'missing', 'deleted'],
  missing: ['active', 'deleted'],
  deleted: ['active'],
};

const changes = STATES.flatMap((from) => STATES.filter((to) => to !== from).map((to) => [from, to] as const));
const isLegal = (from: State, to: State) => LEGAL[from].includes(to);

/** Content columns, with a value that a new node does not have. */
const CONTENT = {
  checksum: 'md5:00',
  content_hash: 'x',
  last_modified_at: '2024-01-01',
  metadata: '{"a": 1}',
  shade: 'blue',
  size_bytes: 5,
  storage_class: 'GLACIER',
};

async function createNodeIn(state: State): Promise<string> {
  const mount = await createMount(database());
  const id = await createNode(database(), mount, mount.rootId, 'report.pdf');
  if (state !== 'active') await setState(id, state);
  return id;
}

const setState = (id: string, state: State) =>
  database().query('update filestore.nodes set state = $2 where id = $1', [id, state]);

test.each(changes.filter(([from, to]) => isLegal(from, to)))('%s can become %s', async (from, to) => {
  const id = await createNodeIn(from);
  await setState(id, to);
  const node = await one(
    database(),
    'select state, live, deleted_at, parent_live from filestore.nodes where id = $1',
    [id],
  );
  expect(node).toMatchObject(
    to === 'deleted'
      ? { state: to, live: false, deleted_at: expect.any(Date), parent_live: null }
      : { state: to, live: true, deleted_at: null, parent_live: true },
  );
});

test.each(changes.filter(([from, to]) => !isLegal(from, to)))('%s cannot become %s', async (from, to) => {
  const id = await createNodeIn(from);
  await expect(setState(id, to)).rejects.toMatchObject({
    code: 'FS422',
    message: expect.stringMatching(new RegExp(`"report.pdf".* ${from} to ${to}`)),
  });
});

test('deleted_at without the state is refused', async () => {
  const id = await createNodeIn('active');
  await expect(
    database().query('update filestore.nodes set deleted_at = now() where id = $1', [id]),
  ).rejects.toMatchObject({ constraint: 'nodes_live_check' });
});

describe('version', () => {
  test.each([["name = 'other'"], ["state = 'missing'"]])('increases at a change of %s', async (change) => {
    const id = await createNodeIn('active');
    const after = await one(
      database(),
      `update filestore.nodes set ${change} where id = $1 returning version, updated_at > created_at as later`,
      [id],
    );
    expect(after).toEqual({ version: 2, later: true });
  });

  test('increases at a change of every content column, also one that a migration adds', async () => {
    const id = await createNodeIn('active');
    const client = await database().connect();
    await client.query('begin');
    try {
      for (const table of ['nodes', 'snapshots'])
        await client.query(`alter table filestore.${table} add column shade text`);
      const { rows: columns } = await client.query(
        'select unnest(filestore.content_columns()) as name order by 1',
      );
      expect(columns.map(({ name }) => name)).toEqual(expect.arrayContaining(Object.keys(CONTENT)));
      for (const [index, [column, value]] of Object.entries(CONTENT).entries()) {
        const { rows } = await client.query(
          `update filestore.nodes set ${column} = $2 where id = $1 returning version`,
          [id, value],
        );
        expect([column, rows]).toEqual([column, [{ version: index + 2 }]]);
      }
    } finally {
      await client.query('rollback');
    }
  });

  test('may be incremented by the caller', async () => {
    const id = await createNodeIn('active');
    expect(
      await one(
        database(),
        'update filestore.nodes set size_bytes = 1, version = version + 1 where id = $1 returning version',
        [id],
      ),
    ).toEqual({ version: 2 });
  });

  test.each(['version = 7, size_bytes = 1', 'version = 3, size_bytes = 1', 'version = null, size_bytes = 1'])(
    'cannot be chosen by the caller: %s',
    async (change) => {
      const id = await createNodeIn('active');
      await expect(
        database().query(`update filestore.nodes set ${change} where id = $1`, [id]),
      ).rejects.toMatchObject({ code: 'FS409' });
    },
  );

  test('does not increase without a change', async () => {
    const id = await createNodeIn('active');
    await expect(
      database().query(
        'update filestore.nodes set size_bytes = size_bytes, version = version + 1 where id = $1',
        [id],
      ),
    ).rejects.toMatchObject({ code: 'FS422' });
  });

  test('updated_at cannot be chosen by the caller', async () => {
    const id = await createNodeIn('active');
    const before = await one(database(), 'select updated_at from filestore.nodes where id = $1', [id]);
    expect(
      await one(
        database(),
        "update filestore.nodes set updated_at = 'tomorrow' where id = $1 returning updated_at",
        [id],
      ),
    ).toEqual(before);
  });

  test('and updated_at change together within one statement and one transaction', async () => {
    const id = await createNodeIn('active');
    const client = await database().connect();
    await client.query('begin');
    const seen: number[] = [];
    for (const size of [1, 2, 3]) {
      const row = await one(
        client,
        `update filestore.nodes set size_bytes = $2 where id = $1
         returning version, extract(epoch from updated_at) * 1000000 as moment`,
        [id, size],
      );
      expect(row.version).toBe(size + 1);
      seen.push(Number(row.moment));
    }
    await client.query('commit');
    expect(seen).toEqual([...new Set(seen)].sort((a, b) => a - b));
  });
});
