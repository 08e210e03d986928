import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { withClient } from '../../src/testing/with-client.ts';
import { runCli } from '../support/command-line/command-line.ts';
import { until } from '../support/until.ts';
import { commandMoves } from './command-moves.ts';
import { type NumberedServer, type ServerName, startTwoServers, type TwoServers } from './two-servers.ts';

let servers: TwoServers;
beforeAll(async () => {
  servers = await startTwoServers();
}, 120_000);
afterAll(() => servers?.stop());

const { env, move, on, fill } = commandMoves(() => servers);

describe('a move that cannot begin', () => {
  test('changes nothing: the target has a mount of that key, or is the source', async () => {
    await fill('begun');
    await on(
      'target',
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('begun', 'local', '/srv/else')",
    );
    expect(await move('begun')).toMatchObject({
      exitCode: 1,
      stderr: expect.stringContaining('has no place here: a mount here has the same key'),
    });
    const same = await runCli(['move', 'begun', '--to', 'FILESTORE_DATABASE_URL'], { env: env() });
    expect(same).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('both are database 1') });
    expect(await on('source', "select from filestore.moves where mount_key = 'begun'")).toEqual([]);
  }, 60_000);

  test('changes nothing: a command on both servers has the same idempotency key', async () => {
    await fill('keyed');
    const begin = "select ((filestore.begin_command('index', idempotency_key => 'once')).entry).id";
    await on('target', begin);
    await on(
      'source',
      `select ((filestore.begin_command('index', mount_id => m.id, idempotency_key => 'once')).entry).id
       from filestore.backend_mounts m where m.mount_key = 'keyed'`,
    );
    const refused = {
      exitCode: 1,
      stderr: expect.stringMatching(/MOVE_FAILED.*journal entry \d+ of the source and \d+ of the target/),
    };
    expect(await move('keyed')).toMatchObject(refused);
    expect(await move('keyed', '--dry-run')).toMatchObject({
      exitCode: 1,
      stdout: expect.stringMatching(/MISSING {2}target: the mount has a place there.*idempotency key/),
    });
    expect(await on('source', "select from filestore.moves where mount_key = 'keyed'")).toEqual([]);
  }, 60_000);

  test('changes nothing: a session of the target locks a table, for which the command waits 10 s', async () => {
    await fill('locked');
    await withClient(servers.target.url, async (client) => {
      await client.query('begin; lock table filestore.nodes in access exclusive mode');
      expect(await move('locked')).toMatchObject({
        exitCode: 1,
        stderr: expect.stringMatching(
          /MOVE_FAILED.*holds a lock that stops the row of mount "locked". Wait for it/,
        ),
      });
      await client.query('rollback; begin; lock table filestore.nodes in share row exclusive mode');
      expect(await move('locked')).toMatchObject({
        exitCode: 1,
        stderr: expect.stringContaining('holds a lock that stops the row of mount "locked"'),
      });
    });
    expect(await on('source', "select from filestore.moves where mount_key = 'locked'")).toEqual([]);
  }, 60_000);

  test('goes on at the source: a session of the target locks the row of the mount during the cut-over', async () => {
    await fill('stopped');
    await withClient(servers.target.url, async (client) => {
      const moved = move('stopped', '--within', '1');
      await client.query('begin');
      const lockRow = () =>
        client.query(
          "select pg_backend_pid() as pid from filestore.backend_mounts where mount_key = 'stopped' for update",
        );
      await until(async () => (await lockRow()).rowCount === 1);
      const [own] = (await lockRow()).rows;
      expect(await moved).toMatchObject({
        exitCode: 1,
        stderr: expect.stringMatching(
          new RegExp(`MOVE_FAILED.*on the target, they wait for process ${own.pid}`),
        ),
      });
      await client.query('rollback');
    });
    expect(await move('stopped')).toMatchObject({ exitCode: 0 });
  }, 60_000);

  test('says that the target cannot read the source, writes no password to its log, and goes on with another URL', async () => {
    await fill('unread');
    const url = new URL(servers.source.url);
    url.password = 'hunter2';
    const result = await runCli(['move', 'unread', '--to', 'TARGET_URL', '--from', 'READER_URL'], {
      env: { ...env(), READER_URL: url.href },
    });
    expect(result).toMatchObject({ exitCode: 1, stderr: expect.stringMatching(/MOVE_FAILED.*--from/) });
    const log = readFileSync(join(servers.target.server.folder, 'postgres.log'), 'utf8');
    expect(log).toContain('could not connect to the publisher');
    expect(result.output + log).not.toContain('hunter2');
    expect(await on('target', 'select from pg_subscription')).toEqual([]);
    expect(await on('source', 'select from pg_replication_slots')).toEqual([]);
    expect(await move('unread')).toMatchObject({ exitCode: 0 });
  }, 60_000);
});

describe('a dry run', () => {
  const asSuperuser = (server: ServerName, text: string) =>
    withClient(servers[server].superuserUrl, async (client) => (await client.query(text)).rows);

  test('fails for a mount that does not exist', async () => {
    const result = await move('no-such-mount', '--dry-run');
    expect(result).toMatchObject({ exitCode: 1 });
    expect(result.stdout).toMatch(
      /MISSING {2}source: the mount can move. the source has no mount of this key/,
    );
  }, 60_000);

  test('names what a role and the target lack, and changes nothing', async () => {
    await fill('unready');
    await on(
      'target',
      "insert into filestore.backend_mounts (mount_key, backend_kind, root_path) values ('taken', 'local', '/srv/unready')",
    );
    const taken = await move('unready', '--dry-run');
    expect(taken).toMatchObject({ exitCode: 1, stderr: expect.stringContaining('1 of ') });
    expect(taken.stdout).toMatch(
      /MISSING {2}target: the mount has a place there.*has no place here: mount "taken" here has the same directory/,
    );
    await on('source', "create role reader_without_right login password 'hunter2-Zq9x'");
    const url = new URL(servers.source.url);
    url.username = 'reader_without_right';
    url.password = 'hunter2-Zq9x';
    const result = await runCli(
      ['move', 'unready', '--to', 'TARGET_URL', '--from', 'READER_URL', '--dry-run', '--json'],
      {
        env: { ...env(), READER_URL: url.href },
      },
    );
    expect(result.exitCode).toBe(1);
    expect(result.output).not.toContain('hunter2');
    const { checks } = JSON.parse(result.stdout);
    expect(checks).toContainEqual(
      expect.objectContaining({ ok: false, remedy: 'alter role reader_without_right replication' }),
    );
    expect(await on('source', 'select from filestore.moves where finished_at is null')).toEqual([]);
  }, 60_000);

  /** Creates a role that may do what the owner of the schema may, but has none of its attributes. @returns its URL. */
  async function createMember(server: NumberedServer, role: string): Promise<string> {
    const url = new URL(server.url);
    await withClient(server.superuserUrl, (client) =>
      client.query(
        `create role "${role}" login password 'hunter2-Zq9x'; grant ${url.username} to "${role}"; grant create on database filestore to "${role}"`,
      ),
    );
    url.username = encodeURIComponent(role);
    url.password = 'hunter2-Zq9x';
    return url.href;
  }

  const dryRun = (mountKey: string, variables: Readonly<Record<string, string>>) =>
    runCli(['move', mountKey, '--to', 'TARGET_URL', '--from', 'READER_URL', '--dry-run'], {
      env: { ...env(), READER_URL: servers.source.url, ...variables },
    });

  test('names what the role lacks that creates the slot on the source', async () => {
    await fill('unable');
    const url = await createMember(servers.source, 'runs\u001b[2Jmoves');
    const result = await dryRun('unable', { FILESTORE_DATABASE_URL: url });
    expect(result.exitCode).toBe(1);
    expect(result.stdout.match(/MISSING.*/g)).toEqual([
      'MISSING  source: the role may create the slot of the move. alter role "runs\\u001b[2Jmoves" replication',
    ]);
    expect(result.output).not.toContain('hunter2');
  }, 60_000);

  test('takes a member of rds_replication for a role that may replicate', async () => {
    await fill('managed-source');
    const FILESTORE_DATABASE_URL = await createMember(servers.source, 'managed_source');
    expect(await dryRun('managed-source', { FILESTORE_DATABASE_URL })).toMatchObject({ exitCode: 1 });
    await on('source', 'create role rds_replication');
    await on('source', 'grant rds_replication to managed_source');
    const result = await dryRun('managed-source', { FILESTORE_DATABASE_URL });
    expect(result, result.output).toMatchObject({ exitCode: 0 });
  }, 60_000);

  test('says that a source with trust did not ask for the password that the target needs', async () => {
    await fill('trusted');
    const TARGET_URL = await createMember(servers.target, 'subscribes');
    const [hba] = await asSuperuser('source', "select current_setting('hba_file') as file");
    const rules = readFileSync(hba?.file, 'utf8');
    const need = 'target: the target reads the source with a password';
    expect((await dryRun('trusted', { TARGET_URL })).stdout).toContain(`${need}\n`);
    try {
      writeFileSync(hba?.file, `host all all all trust\n${rules}`);
      await asSuperuser('source', 'select pg_reload_conf()');
      const isTrusting = async () =>
        (await dryRun('trusted', { TARGET_URL })).stdout.includes(`${need}, if the source asks it for one`);
      await until(isTrusting);
    } finally {
      writeFileSync(hba?.file, rules);
      await asSuperuser('source', 'select pg_reload_conf()');
    }
  }, 60_000);

  test('takes the administrator of a managed server for a role that may subscribe', async ({ skip }) => {
    const [version] = await on<{ number: number }>(
      'target',
      "select current_setting('server_version_num')::integer as number",
    );
    skip((version?.number ?? 0) >= 160_000, 'from PostgreSQL 16 on, pg_create_subscription decides');
    await fill('managed-target');
    const TARGET_URL = await createMember(servers.target, 'managed_target');
    const lacking = await dryRun('managed-target', { TARGET_URL });
    expect(lacking.stdout.match(/MISSING.*/g)).toEqual([
      expect.stringContaining('target: the role may create subscriptions'),
    ]);
    await on('target', 'create role cloudsqlsuperuser');
    await on('target', 'grant cloudsqlsuperuser to managed_target');
    expect(await dryRun('managed-target', { TARGET_URL })).toMatchObject({ exitCode: 0 });
  }, 60_000);

  test.each([
    ['no variable', []],
    ['a URL', ['--to', 'postgres://u:hunter2@h/d']],
    ['a variable that is not set', ['--to', 'NO_SUCH_URL']],
  ])('refuses %s, and quotes no URL', async (_, options) => {
    const result = await runCli(['move', 'media', ...options], { env: env() });
    expect(result).toMatchObject({ exitCode: 2, stderr: expect.stringContaining('SETTINGS_INVALID') });
    expect(result.output).not.toContain('hunter2');
  });
});
