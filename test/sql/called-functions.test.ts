import type { Client } from 'pg';
import { beforeAll, describe, expect, test } from 'vitest';
import {
  callForAll,
  callForNothing,
  callForOne,
  callForOneOrNone,
  type SqlFunction,
} from '../../src/sql/call.ts';
import { databaseForFile } from '../support/databases/test-database.ts';
import { createMount } from '../support/rows/nodes.ts';

const database = databaseForFile();

describe('a function', () => {
  const describeFunction = (name: string, result: SqlFunction['result']): SqlFunction => ({
    name,
    result,
    parameters: {},
  });
  let client: Client;
  beforeAll(async () => {
    client = await database().connect();
    // Two nodes: their roots.
    await createMount(client);
    await createMount(client, 's3');
    await client.query(`
      create function filestore.no_row() returns filestore.nodes
        language sql as 'select null::filestore.nodes';
      create function filestore.no_entry(out "the row" filestore.nodes, out id integer)
        language sql as 'select null::filestore.nodes, 1';
      create function filestore.no_value() returns integer language sql as 'select null::integer';
      create function filestore.two_rows() returns setof filestore.nodes rows 1
        language sql as 'select * from filestore.nodes limit 2';
      create function filestore.last_item("a ""name""" jsonb[]) returns jsonb
        language sql as 'select $1[array_length($1, 1)]';`);
  });

  test('that returns a row of nulls instead of a row is an error', async () => {
    const [row, nested] = [
      describeFunction('no_row', { table: 'nodes' }),
      describeFunction('no_entry', { table: 'nodes', row: 'the row', columns: ['id'] }),
    ];
    await expect(callForOne(client, row, {})).rejects.toThrow('filestore.no_row returned null');
    await expect(callForAll(client, row, {})).rejects.toThrow('filestore.no_row returned null');
    await expect(callForOne(client, nested, {})).rejects.toThrow('filestore.no_entry returned null');
    await expect(callForNothing(client, row, {})).resolves.toBeUndefined();
  });

  test('that returns null without announcing it is an error', async () => {
    const calling = (result: SqlFunction['result']) =>
      callForOne(client, describeFunction('no_value', result), {});
    await expect(calling('value')).rejects.toThrow('filestore.no_value returned null');
    expect(await calling('value or null')).toBeNull();
  });

  test('that returns more than the one row that it promises is an error', async () => {
    await expect(
      callForOneOrNone(client, describeFunction('two_rows', { table: 'nodes' }), {}),
    ).rejects.toThrow('rows 1');
  });

  test('can take domains and arrays of them', async () => {
    await client.query(`
      create function filestore.take_domains(kind filestore.node_kind, states filestore.node_state[] default '{deleted}')
        returns text language sql as 'select kind || states::text'`);
    const called: SqlFunction = {
      name: 'take_domains',
      result: 'value',
      parameters: { kind: { name: 'kind', required: true }, states: { name: 'states', takes: 'list' } },
    };
    expect(await callForOne(client, called, { kind: 'file' })).toBe('file{deleted}');
    const states = ['active', 'missing'];
    expect(await callForOne(client, called, { kind: 'file', states })).toBe('file{active,missing}');
    await expect(callForOne(client, called, { kind: 'link' })).rejects.toMatchObject({ code: '23514' });
  });

  test('can have odd names, and gets each element of a JSON array as one value', async () => {
    const called: SqlFunction = {
      name: 'last_item',
      result: 'value',
      parameters: { 'a "key"': { name: 'a "name"', json: 'array' } },
    };
    expect(await callForOne(client, called, { 'a "key"': [1, { a: ['"'] }] })).toEqual({ a: ['"'] });
  });
});
