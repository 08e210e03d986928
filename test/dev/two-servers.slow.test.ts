import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { databaseUrl } from '../../harness/connection.ts';
import { copyPackage, type PackageCopy } from '../../harness/package-copy.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { editorOf, query, workflowEnv } from '../support/command-line/workflow.ts';
import { type OwnServer, startOwnServer } from '../support/servers/own-server.ts';

let copy: PackageCopy;
let one: OwnServer;
let other: OwnServer;
beforeAll(async () => {
  [one, other] = await Promise.all([startOwnServer({ listen: 'tcp' }), startOwnServer({ listen: 'tcp' })]);
});
afterAll(() => Promise.all([one?.stop(), other?.stop()]));
beforeEach(() => {
  copy = copyPackage();
});
afterEach(() => copy.remove());

const NAMES = ['app', 'app_shadow'];
const tableOf = (server: OwnServer, name: string) =>
  query(databaseUrl(server.url, name), "select relname from pg_class where relname = 'precious'");

describe('a database is erased over a root URL that leads to another server', () => {
  beforeEach(async () => {
    for (const server of [one, other]) {
      for (const name of NAMES) {
        await query(server.url, `drop database if exists ${name}`);
        await query(server.url, `create database ${name}`);
        await query(databaseUrl(server.url, name), 'create table precious (n integer)');
      }
    }
  });

  test.each([
    ['reset', [], 'DATABASE_URL', 'app'],
    ['commit', ['-m', 'Owner hints'], 'SHADOW_DATABASE_URL', 'app_shadow'],
  ])(
    'never: %s refuses, also when it is missing on its own server',
    async (command, options, variable, name) => {
      if (command === 'commit') editorOf(copy).write('select 1;\n');
      const env = { ...workflowEnv(one.url, 'app'), ROOT_DATABASE_URL: other.url };
      const run = () => runCli([command, ...options], { folder: copy.folder, env });
      const refused = {
        exitCode: 2,
        stdout: '',
        stderr: expect.stringContaining(`${variable} and ROOT_DATABASE_URL lead to two servers`),
      };
      expect(await run()).toMatchObject(refused);
      expect(await tableOf(one, name)).toHaveLength(1);
      await query(one.url, `drop database ${name}`);
      expect(await run()).toMatchObject(refused);
      expect(await tableOf(other, name)).toHaveLength(1);
    },
  );

  test('as before when both have other names for one server', async () => {
    const root = new URL(one.url);
    root.hostname = 'localhost';
    const env = { ...workflowEnv(one.url, 'app'), ROOT_DATABASE_URL: root.href };
    expect(await runCli(['reset'], { folder: copy.folder, env })).toMatchObject({ exitCode: 0 });
    expect(await tableOf(one, 'app')).toEqual([]);
  });
});
