import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runningServer } from '../../dev/embedded/server-data.ts';
import { collect, runCli, startCli } from '../support/command-line.ts';
import { type OwnServer, startOwnServer } from '../support/own-server.ts';
import { putSignal } from '../support/standby.ts';
import { until } from '../support/until.ts';

let server: OwnServer;

beforeEach(async () => {
  // Without hot standby, a server in recovery is one that has not started yet.
  server = await startOwnServer({ settings: ['hot_standby=off', 'authentication_timeout=600s'] });
});
afterEach(() => server?.stop());

function startMigrator() {
  const child = startCli(['migrate'], { env: { DATABASE_URL: server.url } });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  return { child, result: collect(child), untilSaid: (text: string) => until(() => said.includes(text)) };
}

test('a server that is down is waited for', async () => {
  await server.shutDown('fast');
  const { result, untilSaid } = startMigrator();
  await untilSaid('Waiting up to 30 s: Cannot connect');
  await server.start();
  const { exitCode, stdout, stderr } = await result;
  expect(exitCode, stderr).toBe(0);
  expect(stdout).toContain('Done: applied');
});

test('a server that is up and takes no connection yet is waited for', async () => {
  await server.shutDown('fast');
  const data = join(server.folder, 'server', 'data');
  putSignal(join(data, 'standby.signal'));
  const starting = server.start();
  const pid = await until(() => runningServer(server.folder)?.pid);
  const { result, untilSaid } = startMigrator();
  await untilSaid('the server is starting up');
  putSignal(join(data, 'promote'));
  await until(() => {
    // It does not hear the signal before it is in recovery.
    process.kill(pid, 'SIGUSR1');
    return !existsSync(join(data, 'promote'));
  });
  await starting;
  const { exitCode, stdout, stderr } = await result;
  expect(exitCode, stderr).toBe(0);
  expect(stdout).toContain('Done: applied');
});

test('a server that stays down is given up after FILESTORE_MIGRATION_CONNECT_WAIT_MS', async () => {
  await server.shutDown('fast');
  const { exitCode, output } = await runCli(['migrate'], {
    env: { DATABASE_URL: server.url, FILESTORE_MIGRATION_CONNECT_WAIT_MS: '300' },
  });
  expect(exitCode).toBe(1);
  expect(output).toMatch(/^Waiting up to 0.3 s: Cannot connect/m);
  expect(output).toMatch(
    /^CONNECTION_FAILED: Cannot connect to database "postgres" on the socket in .*Check/m,
  );
});

test('a password that is missing ends the process, which does not wait until the server gives up as well', async () => {
  const url = new URL(server.url);
  url.password = '';
  const { exitCode, output } = await runCli(['migrate'], { env: { DATABASE_URL: url.href } });
  expect(exitCode).toBe(1);
  expect(output).toMatch(/^CONNECTION_FAILED: .*password/m);
});

test('a wait for a server ends when the process gets a signal', async () => {
  await server.shutDown('fast');
  const { child, result, untilSaid } = startMigrator();
  await untilSaid('Waiting up to');
  child.kill('SIGTERM');
  const { exitCode, output } = await result;
  expect(exitCode).toBe(1);
  expect(output).toContain('RUN_ABORTED: Stopped on request (SIGTERM). Applied and kept: nothing.');
});
