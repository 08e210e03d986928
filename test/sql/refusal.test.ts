import { describe, expect, expectTypeOf, test } from 'vitest';
import {
  isRefusal,
  isUnavailable,
  type Refusal,
  type RefusalReason,
  refusalOf,
} from '../../src/sql/index.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount, createNode } from '../support/rows/nodes.ts';

const database = databaseForFile();

async function errorOf(text: string, values: unknown[] = []): Promise<unknown> {
  return database()
    .query(text, values)
    .then(
      () => undefined,
      (error: unknown) => error,
    );
}

async function takenName(): Promise<unknown> {
  const mount = await createMount(database());
  await createNode(database(), mount, mount.rootId, 'f');
  return errorOf("select filestore.create_node($1, 'f')", [mount.rootId]);
}

describe('isRefusal', () => {
  test('recognises a refusal of a function, for any reason or for one of several', async () => {
    const error = await takenName();
    expect(isRefusal(error)).toBe(true);
    expect(isRefusal(error, 'nodes_name_taken')).toBe(true);
    expect(isRefusal(error, 'nodes_stale', 'nodes_name_taken')).toBe(true);
    expect(isRefusal(error, 'nodes_stale')).toBe(false);
  });

  test('recognises a refusal of a key, a domain and the rules of a table', async () => {
    const mount = await createMount(database());
    const insert = (name: string, kind: string, size: number) =>
      errorOf(
        'insert into filestore.nodes (backend_mount_id, parent_id, name, kind, size_bytes) values ($1, $2, $3, $4, $5)',
        [mount.id, mount.rootId, name, kind, size],
      );
    await insert('f', 'file', 0);
    expect(isRefusal(await insert('f', 'file', 0), 'nodes_live_child_key')).toBe(true);
    expect(isRefusal(await insert('g', 'link', 0), 'node_kind_check')).toBe(true);
    expect(isRefusal(await insert('g', 'file', -1), 'nodes_size_check')).toBe(true);
  });

  test.each([
    ['a rule of the table', { size_bytes: -1 }, 'nodes_size_check'],
    ['a domain', { kind: 'link' }, 'node_kind_check'],
  ] as const)('recognises a refusal of %s in a batch', async (_, fault, reason) => {
    const mount = await createMount(database());
    const nodes = [{ parent_id: mount.rootId, name: 'f', ...fault }];
    const error = await errorOf('select filestore.create_nodes($1)', [JSON.stringify(nodes)]);
    expect(isRefusal(error, reason)).toBe(true);
  });

  test('does not recognise a constraint of the same name in another schema', async () => {
    await database().query(
      'create schema other; create table other.nodes (id bigint constraint nodes_pkey primary key)',
    );
    await database().query('insert into other.nodes values (1)');
    const error = await errorOf('insert into other.nodes values (1)');
    expect(error).toMatchObject({ code: '23505', constraint: 'nodes_pkey' });
    expect(isRefusal(error)).toBe(false);
  });

  test('recognises an error by its fields, so that it may be of another copy of pg', async () => {
    const { code, constraint, message } = (await takenName()) as Refusal;
    expect(isRefusal({ name: 'error', code, constraint, message })).toBe(true);
    expect(isRefusal(Object.assign(new Error(message), { code, constraint }))).toBe(true);
  });

  test('ignores the cause of an error, because the fields are those of the cause', async () => {
    const wrapped = new Error('the query failed', { cause: await takenName() });
    expect(isRefusal(wrapped)).toBe(false);
    expect(isRefusal(wrapped.cause, 'nodes_name_taken')).toBe(true);
  });

  test.each([
    ['null', null],
    ['undefined', undefined],
    ['a text', 'nodes_name_taken'],
    ['an error without fields', new Error('nodes_name_taken')],
    ['an unknown reason', Object.assign(new Error('x'), { code: 'FS409', constraint: 'nodes_unknown' })],
    ['no reason', Object.assign(new Error('x'), { code: 'FS409' })],
    ['another SQLSTATE', Object.assign(new Error('x'), { code: '42501', constraint: 'nodes_stale' })],
    ['no message', { code: 'FS409', constraint: 'nodes_stale' }],
  ])('does not recognise %s', (_what, error) => {
    expect(isRefusal(error)).toBe(false);
  });

  test('narrows the type to the given reasons', async () => {
    const error: unknown = await takenName();
    if (isRefusal(error, 'nodes_name_taken', 'nodes_stale')) {
      expectTypeOf(error.constraint).toEqualTypeOf<'nodes_name_taken' | 'nodes_stale'>();
      expectTypeOf(error.message).toBeString();
      expectTypeOf(error.hint).toEqualTypeOf<string | undefined>();
    }
    if (isRefusal(error)) expectTypeOf(error.constraint).toEqualTypeOf<RefusalReason>();
    // @ts-expect-error The reason does not exist.
    expect(isRefusal(error, 'nodes_unknown')).toBe(false);
  });
});

const coded = (code: string, constraint?: string) => Object.assign(new Error('sample'), { code, constraint });
const wrap = (cause: unknown, times: number): unknown =>
  times === 0 ? cause : wrap(new Error('the query failed', { cause }), times - 1);

describe('refusalOf', () => {
  test('finds the refusal that is an error, or that a library wrapped', async () => {
    const refusal = await takenName();
    for (const times of [0, 1, 3]) {
      const error = wrap(refusal, times);
      expect(refusalOf(error)).toBe(refusal);
      expect(refusalOf(error, 'nodes_name_taken')).toBe(refusal);
      expect(refusalOf(error, 'nodes_stale')).toBeUndefined();
    }
    expectTypeOf(refusalOf(refusal, 'nodes_stale')).toEqualTypeOf<Refusal<'nodes_stale'> | undefined>();
  });

  test('does not look behind an error with a code, which says what happened', () => {
    const cause = coded('FS409', 'nodes_stale');
    expect(
      refusalOf(Object.assign(new Error('sample', { cause }), { code: 'TRANSACTION_ROLLED_BACK' })),
    ).toBeUndefined();
  });

  test('finds none in a circle of causes, and in what is no error', () => {
    const circle = new Error('sample');
    circle.cause = new Error('sample', { cause: circle });
    for (const value of [circle, null, undefined, 'nodes_stale', 7]) expect(refusalOf(value)).toBeUndefined();
  });
});

describe('isUnavailable', () => {
  test.each<[string, unknown]>([
    ['a deadlock', coded('40P01')],
    ['a server that stops', coded('57P01')],
    ['a lost connection of the pool', coded('CONNECTION_LOST')],
    ['a refused connection of another pool', coded('ECONNREFUSED')],
    ['a lost connection of another pool', new Error('Connection terminated unexpectedly')],
    ['a mount that moves', coded('FS409', 'backend_mounts_moving')],
    ['a wrapped one', wrap(coded('55P03'), 2)],
  ])('is true for %s', (_, error) => {
    expect(isUnavailable(error)).toBe(true);
  });

  test.each<[string, unknown]>([
    ['a refusal', coded('FS409', 'nodes_stale')],
    ['a missing right', coded('42501')],
    ['an error of the program', new TypeError('Connection')],
    ['null', null],
    ['a text', '40P01'],
  ])('is false for %s', (_, error) => {
    expect(isUnavailable(error)).toBe(false);
  });
});
