import { expect, test } from 'vitest';
import { readAccess } from '../../dev/documents/access.ts';
import { describeSchema } from '../../dev/documents/describe-schema.ts';
import { renderCalls } from '../../dev/documents/render-calls.ts';
import { renderRowTypes } from '../../dev/documents/render-row-types.ts';
import { databaseRolledBackAfterEachTest } from '../support/databases/test-database.ts';

const database = databaseRolledBackAfterEachTest();

/** Generates the calls after some SQL, as if services could call the functions that it creates. */
async function callsWith(sql: string, ...names: readonly string[]): Promise<string> {
  await database().query(sql);
  const client = await database().connect();
  const [schema, access] = [await describeSchema(client), await readAccess(client)];
  const callers = new Map([...access.callers, ...names.map((name) => [name, 'service'] as const)]);
  return renderCalls(schema, { ...access, callers }, renderRowTypes(schema, { ...access, callers }));
}

/** Everything that is generated for one call. */
function callOf(calls: string, name: string): string {
  const parts = calls.split('\n\n');
  const end = parts.findIndex((part) => part.includes(`export function ${name}(`));
  const start = parts.findLastIndex((part, at) => at < end && part.includes('export function ')) + 1;
  return parts.slice(start, end + 1).join('\n\n');
}

const odd = (parameters: string, returns: string, rest = '') =>
  `create function filestore.odd_thing(${parameters}) returns ${returns} language sql ${rest} as 'select null';
   comment on function filestore.odd_thing is 'Is odd.'`;

test('an argument is required if SQL has no default, and may be null if the default is null', async () => {
  const calls = await callsWith(
    `set check_function_bodies = off; ${odd("node_id bigint, a_limit integer default 10, seen_at timestamptz default null, labels jsonb default '{}', error jsonb default null", 'void')}`,
    'odd_thing',
  );
  expect(callOf(calls, 'oddThing')).toBe(`/** The arguments of {@link oddThing}. */
export interface OddThingArguments {
  readonly nodeId: string | number | bigint;
  /** Default: 10 */
  readonly aLimit?: number | undefined;
  readonly seenAt?: Date | string | null | undefined;
  /** Default: '{}'::jsonb */
  readonly labels?: NonNullable<JsonInput> | undefined;
  readonly error?: JsonInput | undefined;
}

const ODD_THING: SqlFunction = {
  name: 'odd_thing',
  result: 'nothing',
  parameters: {
    nodeId: { name: 'node_id', required: true },
    aLimit: { name: 'a_limit' },
    seenAt: { name: 'seen_at' },
    labels: { name: 'labels', json: 'value' },
    error: { name: 'error', json: 'value' },
  },
};

/** Is odd. May be called by services and operators. */
export function oddThing(client: SqlClient, args: OddThingArguments): Promise<void> {
  return callForNothing(client, ODD_THING, args);
}`);
});

test('an argument of a domain has the imported type of its values', async () => {
  const calls = await callsWith(
    `set check_function_bodies = off; ${odd('kind filestore.node_kind, states filestore.node_state[]', 'void')}`,
    'odd_thing',
  );
  expect(callOf(calls, 'oddThing')).toContain(
    '  readonly kind: NodeKind;\n  readonly states: readonly NodeState[];\n',
  );
  expect(/^import type \{([^}]*)\} from '..\/..\/schema\/rows.d.ts';$/m.exec(calls)?.[1]).toMatch(
    /\bNodeKind\b.*\bNodeState\b/s,
  );
});

test('an argument of a domain over jsonb, or an array of jsonb, is passed as JSON', async () => {
  const calls = await callsWith(
    `create domain filestore.labels as jsonb check (jsonb_typeof(value) = 'object');
     set check_function_bodies = off; ${odd('labels filestore.labels, items jsonb[]', 'void')}`,
    'odd_thing',
  );
  expect(callOf(calls, 'oddThing')).toContain(
    '  readonly labels: JsonObjectInput;\n  readonly items: readonly JsonInput[];\n',
  );
  expect(callOf(calls, 'oddThing')).toContain(
    "json: 'value' },\n    items: { name: 'items', required: true, json: 'array'",
  );
});

test.each([
  ['a row of a table', 'filestore.nodes', '', 'NodeRow', 'callForOne', "{ table: 'nodes' }"],
  [
    'at most one row of a table',
    'setof filestore.nodes',
    'rows 1',
    'NodeRow | undefined',
    'callForOneOrNone',
    "{ table: 'nodes' }",
  ],
  ['rows of a table', 'setof filestore.nodes', '', 'readonly NodeRow[]', 'callForAll', "{ table: 'nodes' }"],
  [
    'rows of a view',
    'setof filestore.view_filestore_active_nodes',
    '',
    'readonly ActiveNodeRow[]',
    'callForAll',
    "{ table: 'view_filestore_active_nodes' }",
  ],
  ['rows of columns', 'table (a integer, b text)', '', 'readonly OddThingRow[]', 'callForAll', "'columns'"],
  [
    'at most one row of columns',
    'table (a integer, b text)',
    'rows 1',
    'OddThingRow | undefined',
    'callForOneOrNone',
    "'columns'",
  ],
  ['a value', 'bigint', '', 'string', 'callForOne', "'value'"],
  ['a value of a domain', 'filestore.node_kind', '', 'NodeKind', 'callForOne', "'value'"],
  ['values', 'setof text', '', 'readonly string[]', 'callForAll', "'value'"],
  ['nothing', 'void', '', 'void', 'callForNothing', "'nothing'"],
])('a function that returns %s', async (_what, returns, rest, type, helper, shape) => {
  const calls = await callsWith(`set check_function_bodies = off; ${odd('', returns, rest)}`, 'odd_thing');
  expect(callOf(calls, 'oddThing')).toBe(`const ODD_THING: SqlFunction = {
  name: 'odd_thing',
  result: ${shape},
  parameters: {},
};

/** Is odd. May be called by services and operators. */
export function oddThing(client: SqlClient): Promise<${type}> {
  return ${helper}(client, ODD_THING, {});
}`);
});

test('a result may be null if migrations/facts.ts says so', async () => {
  const calls = await callsWith('select');
  expect(callOf(calls, 'nodeLocation')).toContain('Promise<string | null>');
  expect(callOf(calls, 'nodeLocation')).toContain("result: 'value or null'");
});

test('an argument with another default may be null if migrations/facts.ts says so', async () => {
  const calls = await callsWith('select');
  expect(callOf(calls, 'recordSightings')).toMatch(
    /\/\*\* Default: .* \*\/\n {2}readonly seenAt\?: Date \| string \| null \| undefined;/,
  );
  expect(callOf(calls, 'createNode')).toContain('readonly sizeBytes?: string | number | bigint | undefined;');
});

test('a row of a table among out parameters is a typed member of the result', async () => {
  const calls = await callsWith(
    `create function filestore.odd_thing(a integer, out was_there boolean, out node filestore.nodes)
     language sql as 'select true, null::filestore.nodes'`,
    'odd_thing',
  );
  const call = callOf(calls, 'oddThing');
  expect(call).toContain(
    'export interface OddThingResult {\n  readonly was_there: boolean | null;\n  readonly node: NodeRow;\n}',
  );
  expect(call).toContain(
    "  result: { table: 'nodes', row: 'node', columns: ['was_there'], nullable: ['was_there'] },\n",
  );
  expect(call).toContain('Promise<OddThingResult>');
  // migrations/facts.ts says that this one is never null.
  expect(callOf(calls, 'beginCommand')).toContain('  readonly is_new: boolean;\n');
});

test('the docstring of each call says which levels may call it', async () => {
  const calls = await callsWith('select');
  const levelsOf = (name: string) => /May be called by (.*)\. \*\//.exec(callOf(calls, name))?.[1];
  expect(levelsOf('nodeByPath')).toBe('readers, services and operators');
  expect(levelsOf('createNode')).toBe('services and operators');
  expect(levelsOf('purgeDeleted')).toBe('operators');
});

test('internal functions, trigger functions and functions for the owner have no call', async () => {
  const calls = await callsWith(
    `create function filestore.odd_thing() returns void language sql as '';
     comment on function filestore.odd_thing() is 'Internal: Is odd.';
     create function filestore.odd_trigger() returns trigger language plpgsql as 'begin return null; end'`,
    ...['odd_thing', 'odd_trigger'],
  );
  const exported = [...calls.matchAll(/^export function (\w+)/gm)].map(([, name]) => name);
  expect(exported).toEqual(expect.arrayContaining(['createNode', 'beginCommand', 'purgeDeleted']));
  for (const name of ['oddThing', 'oddTrigger', 'checkName', 'isSound', 'grantAccess', 'eraseMount']) {
    expect(exported).not.toContain(name);
  }
});

test.each([
  ['an argument without a name', odd('integer', 'void'), 'that cannot be given by its name'],
  ['a variadic argument', odd('variadic ids bigint[]', 'void'), 'that cannot be given by its name'],
  [
    'two table rows in its result',
    odd('', 'table (a filestore.nodes, b filestore.nodes)'),
    'returns more than one row of a table in a row',
  ],
])('a function with %s is refused', async (_what, sql, why) => {
  await expect(callsWith(`set check_function_bodies = off; ${sql}`, 'odd_thing')).rejects.toThrow(why);
});
